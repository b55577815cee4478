"""The law of sparse kernels: what a kernel computes is what the dense operator does, on every instruction set that is here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernel_cases as cases
from onnxprune.kernels import build, library
from onnxprune.sparse.kernel_nodes import FUSIONS

pytestmark = pytest.mark.skipif(not build.compiler(), reason="no C compiler")

SETS = ("avx512", "avx2", "neon", "portable")
DRAWS = 60


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that this processor has, in use."""
    monkeypatch.setenv("ONNXPRUNE_KERNELS_ISA", request.param)
    command = [sys.executable, "-c", "from onnxprune.kernels import instruction_set as used; print(used())"]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if used != request.param:
        pytest.skip(f"this processor has no {request.param}")
    return used


def check(case: cases.Case, path: Path) -> None:
    found = case.run(path)
    assert cases.error(found, case.expected()) < cases.TOLERANCE, case
    np.testing.assert_array_equal(found.view(np.int32), case.run(path, threads=2).view(np.int32))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("draw", [cases.convolution, cases.product])
def test_kernels_compute_what_dense_ones_do_whatever_the_threads(draw: object) -> None:
    assert callable(draw)
    for seed in range(DRAWS):
        check(draw(np.random.default_rng(seed)), library())


def test_every_operator_is_drawn() -> None:
    drawn = {draw(np.random.default_rng(seed)).operator for draw in (cases.convolution, cases.product) for seed in range(DRAWS)}
    assert drawn == FUSIONS.keys()


@pytest.mark.parametrize("height", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "size",
    [
        (64, 256, 1, 1, 56),
        (64, 64, 3, 1, 56),
        (256, 256, 3, 1, 14),
        (256, 512, 1, 2, 28),
        (512, 512, 3, 1, 7),
        (512, 512, 3, 2, 14),
    ],
)
def test_layers_of_a_real_network(size: tuple[int, int, int, int, int], height: int) -> None:
    """Large enough for several tiles and blocks of columns, for planes that parts share, and for last vectors that overlap."""
    inputs, outputs, kernel, stride, pixels = size
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs, kernel, kernel)).astype(np.float32) * (rng.random((outputs, 1, 1, 1)) < 0.9)
    weight *= (rng.random((outputs // height, *weight.shape[1:])) < 0.2).repeat(height, axis=0)
    feeds = {"x": rng.standard_normal((1, inputs, pixels, pixels)).astype(np.float32)}
    weights = {"w": weight, "b": rng.standard_normal(outputs).astype(np.float32)}
    attributes = {"pads": [kernel // 2] * 4, "strides": [stride] * 2}
    check(cases.Case("SparseConv", "Conv", weights, feeds, ["x", "w", "b"], attributes), library())


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("height", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("tokens", [1, 70])
def test_every_number_of_float16_is_stored_as_it_is(height: int, tokens: int) -> None:
    """Large weights that float16 can hold are kept in it: subnormal ones, the largest, and those of every exponent."""
    case, expected = cases.of_every_half(height, tokens)
    np.testing.assert_array_equal(case.run(library()), expected)
    weight = case.weights["w"]
    weight[:, 0] = 1 + 2**-11  # which float16 has not: then none of them is stored in it
    expected[:, 0] = weight[0, 0]
    np.testing.assert_array_equal(case.run(library()), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("-DVECTOR_BYTES=64", "-DREGISTERS=32"), ("-DVECTOR_BYTES=32",), ("-DVECTOR_BYTES=16", "-DREGISTERS=32")]
)
def test_vectors_and_registers_of_other_processors(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX-512, AVX2 and NEON differ in sizes alone: compilers make plain instructions of their vectors where they must."""
    monkeypatch.setenv("ONNXPRUNE_KERNELS_ISA", "portable")
    for sets in (build._X86, build._ARM, build._PORTABLE):
        monkeypatch.setitem(sets, "portable", (*flags, "-Wno-psabi"))
    path = build.compile_library(tmp_path / build.file_name())
    for seed in range(DRAWS):
        check(cases.convolution(np.random.default_rng(seed)), path)
        check(cases.product(np.random.default_rng(seed)), path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizer is loaded as Linux does it")
def test_no_access_outside_of_memory(tmp_path: Path) -> None:
    """Under AddressSanitizer: the law, and nodes with other numbers than theirs, which are refused or computed."""
    path = build.compile_library(tmp_path / build.file_name(), ["-fsanitize=address", "-g"])
    named = (f"-print-file-name={name}" for name in ("libasan.so", "libstdc++.so"))  # which is not there yet when it is asked for
    found = [
        subprocess.run([*build.compiler(), name], capture_output=True, text=True, check=True).stdout.strip() for name in named
    ]
    env = {**os.environ, "LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).with_name("mutations.py")
    run = subprocess.run([sys.executable, script, path, "10000"], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "10000 nodes" in run.stdout
