"""Compiling the library: with what, for what, and what a failure says."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.kernels import build

needs_compiler = pytest.mark.skipif(not build.compiler(), reason="no C compiler")


@pytest.mark.parametrize(
    ("system", "name"),
    [("linux", "onnxprune_kernels.so"), ("darwin", "onnxprune_kernels.dylib"), ("win32", "onnxprune_kernels.dll")],
)
def test_each_system_has_its_name(system: str, name: str) -> None:
    assert build.file_name(system) == name


def test_the_users_compiler_comes_first_and_ziglang_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "mine -m64")
    assert build.compiler() == ["mine", "-m64"]
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "find_spec", lambda name: name)
    assert build.compiler() == [sys.executable, "-m", "ziglang", "cc"]
    monkeypatch.setattr(build, "find_spec", lambda _: None)
    assert build.compiler() == []


def test_without_a_compiler_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compiler", list)
    with pytest.raises(OptionError, match=r"no C compiler: install one, or run pip install ziglang"):
        build.compile_library(tmp_path / "library.so")
    with pytest.raises(OptionError, match=r"nothing-here: No such file"):
        build.compile_library(tmp_path / "library.so", command=["nothing-here"])
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_failing_compiler_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(build.SOURCES, tmp_path / "src")
    (tmp_path / "src" / "pack.c").write_text("int broken(")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    with pytest.raises(OptionError, match=r"not built: .* failed: .*pack.c.*error"):
        build.compile_library(tmp_path / "out" / "library.so")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_build_is_known_by_sources_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.digest()
    assert first == build.digest()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build.digest() != first
    monkeypatch.undo()
    shutil.copytree(build.SOURCES, tmp_path / "src")
    with (tmp_path / "src" / "ort.h").open("a") as file:
        file.write("/* more */")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    assert build.digest() != first


def test_every_source_is_short() -> None:
    """As every other file: a reader goes through it in one sitting."""
    for source in build.SOURCES.iterdir():
        assert len(source.read_text().splitlines()) <= 400, source.name
