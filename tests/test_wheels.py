"""Wheels for each platform: the tag, the library of kernels for it, and what that exports."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from binaries import exported, glibc_versions, machine
from onnxprune.errors import OptionError
from onnxprune.kernels import build
from onnxprune.kernels.build import TARGETS

ROOT = Path(__file__).resolve().parent.parent


def built(tag: str, tree: Path) -> subprocess.CompletedProcess[str]:
    """What `make wheels` runs for a platform, in a copy of the package."""
    tree.mkdir()
    for name in ("onnxprune", "passes"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "out").mkdir()
    egg, base = ["egg_info", "--egg-base", "out"], ["build", "--build-base", "out"]
    wheel = ["bdist_wheel", "--plat-name", tag, "--bdist-dir", "out/wheel", "--dist-dir", "dist"]
    command = [sys.executable, "setup.py", "--quiet", *egg, *base, *wheel]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ziglang"), reason="ziglang is not installed")
@pytest.mark.parametrize("tag", TARGETS)
def test_a_wheel_has_the_kernels_of_its_platform(tag: str, tmp_path: Path) -> None:
    run = built(tag, tmp_path / "tree")
    assert run.returncode == 0, run.stderr
    (wheel,) = (tmp_path / "tree" / "dist").iterdir()
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    target = TARGETS[tag]
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
        described = packed.read(about).decode()
        libraries = [name for name in names if name.rpartition("/")[2].startswith("onnxprune_kernels")]
        assert libraries == [f"onnxprune/kernels/{build.file_name(target.system)}"]
        data = packed.read(libraries[0])
    assert f"Tag: py3-none-{tag}\n" in described
    assert "Root-Is-Purelib: false" in described
    assert machine(data) == f"{target.system} {target.machine}"
    assert {"RegisterCustomOps", "onnxprune_kernels_isa"} <= exported(data)
    if target.system != "darwin":  # where the linker adds names of its own
        assert exported(data) == {"RegisterCustomOps", "onnxprune_kernels_isa"}
    if target.system == "linux":
        assert max(glibc_versions(data)) <= (2, 17)


@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
def test_the_library_of_this_machine_exports_two_functions(tmp_path: Path) -> None:
    data = build.compile_library(tmp_path / build.file_name()).read_bytes()
    assert exported(data) == {"RegisterCustomOps", "onnxprune_kernels_isa"}
    assert machine(data).split()[0] == sys.platform


def test_a_platform_without_kernels_is_refused(tmp_path: Path) -> None:
    run = built("linux_mips", tmp_path / "tree")
    assert run.returncode
    assert "--plat-name linux_mips: there are kernels for manylinux_2_17_x86_64, " in run.stderr


def test_other_machines_need_zig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match="compiled by zig: run pip install ziglang"):
        build.compile_library(tmp_path / "library.so", target=TARGETS["win_amd64"])
    assert list(tmp_path.iterdir()) == []
