"""The numbers of functions in ONNX Runtime's table: the same library runs in every release from 1.20 on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onnxprune.kernels import build, library

RELEASES = ("1.20.1", "1.22.1", "1.24.4", "1.27.0")
"""Beside the one that is installed, which every other test runs."""
ENDS = {1: 101, 2: 118, 3: 124, 4: 126, 5: 149, 6: 157, 7: 161, 8: 169, 14: 238, 15: 254, 17: 275, 18: 279}
"""The last entry of a version of the table, as ONNX Runtime's own source asserts it."""
FUNCTIONS = {
    1: """CreateStatus CreateCustomOpDomain CustomOpDomain_Add AddCustomOpDomain GetTensorMutableData GetTensorElementType
    GetDimensionsCount GetDimensions GetTensorTypeAndShape AllocatorAlloc AllocatorFree KernelInfoGetAttribute_int64
    KernelContext_GetInputCount KernelContext_GetInput KernelContext_GetOutput ReleaseStatus ReleaseTensorTypeAndShapeInfo
    ReleaseCustomOpDomain""",
    5: "ReleaseAllocator",
    8: "KernelInfoGetAttributeArray_int64",
    15: "KernelInfoGetConstantInput_tensor",
    17: "KernelContext_ParallelFor",
    18: "KernelInfoGetAllocator",
}
"""The version of the table that each function came with."""

RUN = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import onnxruntime
assert onnxruntime.__version__ == {release!r}, onnxruntime.__version__
import kernel_cases as cases
from pathlib import Path
for seed in range(20):
    for draw in (cases.convolution, cases.product):
        case = draw(np.random.default_rng(seed))
        found = case.run(Path({library!r}))
        assert cases.error(found, case.expected()) < cases.TOLERANCE
        assert (found == case.run(Path({library!r}), threads=2)).all()
"""


def numbers() -> dict[str, int]:
    text = (build.SOURCES / "ort.h").read_text()
    return {name: int(number) for name, number in re.findall(r"\bF\((\w+), (\d+),", text)}


def test_each_number_is_within_its_version_of_the_table() -> None:
    versions = {name: version for version, names in FUNCTIONS.items() for name in names.split()}
    assert versions.keys() == numbers().keys()
    for name, number in numbers().items():
        version = versions[name]
        before = max((end for earlier, end in ENDS.items() if earlier < version), default=-1)
        assert before < number <= ENDS[version], name


@pytest.mark.slow
@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
@pytest.mark.parametrize("release", RELEASES)
def test_the_library_runs_in_other_releases(release: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(tmp_path),
        f"onnxruntime=={release}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"onnxruntime {release} cannot be had: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = RUN.format(paths=[str(tmp_path), *sys.path], release=release, library=str(library()))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert run.returncode == 0, run.stderr[-3000:]
