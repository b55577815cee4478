"""Weights in files beside the model: only files of its own folder are read, and they must be whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from two_files import outside

ARRAY = np.arange(15, dtype=np.float32).reshape(3, 5)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../data.bin", "outside the model's folder"),
        ("sub/../../data.bin", "outside the model's folder"),
        ("absent.bin", "is missing"),
        ("", "is missing"),
    ],
)
def test_data_elsewhere_is_refused(tmp_path: Path, location: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Model.of(outside(tmp_path / "m.onnx", ARRAY, location))


def test_an_absolute_path_is_refused_even_inside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="outside the model's folder"):
        Model.of(outside(tmp_path / "m.onnx", ARRAY, str(tmp_path / "data.bin")))


def cached(folder: Path) -> Path:
    """A model as download caches keep it: the file and its data are links into one folder, under other names."""
    path = folder / "snapshots" / "main" / "onnx" / "m.onnx"
    path.parent.mkdir(parents=True)
    (folder / "blobs").mkdir()
    outside(path, ARRAY)
    for number, name in enumerate((path.name, "data.bin")):
        blob = folder / "blobs" / f"{number:040x}"
        (path.parent / name).rename(blob)
        (path.parent / name).symlink_to(Path("../../../blobs") / blob.name)
    return path


def test_links_into_the_folder_that_holds_the_model_are_followed(tmp_path: Path) -> None:
    path = cached(tmp_path)
    assert np.array_equal(Model.of(path).weights["w"].array(), ARRAY)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("data.bin", "leads nowhere"),
        ("../../../blobs/absent", "leads nowhere"),
        ("../../../elsewhere.bin", "outside the model's folder"),
    ],
)
def test_other_links_are_refused(tmp_path: Path, target: str, words: str) -> None:
    path = cached(tmp_path)
    (tmp_path / "elsewhere.bin").write_bytes(bytes(4096))
    data = path.parent / "data.bin"
    data.unlink()
    data.symlink_to(target)
    with pytest.raises(ModelError, match=words):
        Model.of(path)


def test_data_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx", ARRAY, skip=8)
    (tmp_path / "data.bin").write_bytes(b"\0" * 67)
    with pytest.raises(ModelError, match=r"data\.bin ends before tensor 'w' does"):
        Model.of(path)


def test_external_data_without_a_path_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(outside(tmp_path / "m.onnx", ARRAY), load_external_data=False)
    with pytest.raises(ModelError, match="pass the path"):
        Model.of(proto)
