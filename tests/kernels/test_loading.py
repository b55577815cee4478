"""Finding the library: what is installed, what was compiled before, what is compiled now."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnx
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


def test_a_file_that_we_wrote_has_kernels_only_where_it_names_their_domain(tmp_path: Path) -> None:
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    model.producer_name = "onnxprune"
    assert not loading.has_kernels(model.SerializeToString())
    model.opset_import.add(domain="onnxprune", version=1)
    assert loading.has_kernels(model.SerializeToString())
    onnx.save(model, tmp_path / "model.onnx")
    assert loading.has_kernels(tmp_path / "model.onnx")
