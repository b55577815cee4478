"""Finding the library: what is installed, what was compiled before, what is compiled now."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

import onnxprune.kernels
from onnxprune.errors import OptionError
from onnxprune.kernels import build, loading
from onnxprune.kernels.build import compiler

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler")


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        loading, "compile_library", lambda path: (path.parent.mkdir(parents=True), path.write_text("made"), path)[2]
    )
    found = loading.library()
    assert found == tmp_path / "onnxprune" / "kernels" / build.digest() / build.file_name()
    monkeypatch.setattr(loading, "compile_library", None)
    assert loading.library() == found


def test_what_is_installed_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / build.file_name()).write_text("installed")
    monkeypatch.setattr(loading, "SOURCES", tmp_path / "src")
    assert loading.library() == tmp_path / build.file_name()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tmp_path.chmod(0o500)
    with pytest.raises(OptionError, match=r"not built: .*Permission denied"):
        loading.library()


def test_sessions_take_it_and_it_knows_its_instruction_set() -> None:
    onnxprune.kernels.register(ort.SessionOptions())
    assert onnxprune.kernels.instruction_set() in {"avx512", "avx2", "neon", "portable"}
