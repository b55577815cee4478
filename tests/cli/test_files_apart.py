"""No file that a command reads is one that it writes, whatever ``--force`` says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from command import DIGITS, Cli, refused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS, "m.onnx")
    np.savez("calib.npz", image=np.random.default_rng(0).random((40, 1, 8, 8), np.float32))
    Path("link.npz").symlink_to("calib.npz")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("prune", "m.onnx", "-o", "o.onnx", "--report", "m.onnx"),
        ("prune", "m.onnx", "-o", "o.onnx", "--report", "o.onnx"),
        ("prune", "m.onnx", "-o", "o.onnx", "--calib", "calib.npz", "--report", "link.npz"),
        ("prune", "m.onnx", "-o", "calib.npz", "--calib", "calib.npz"),
        ("prune", "m.onnx", "-o", "o.onnx", "--calib", "calib.npz", "--plan-out", "./calib.npz"),
        ("quantize", "m.onnx", "-o", "calib.npz", "--calib", "calib.npz"),
        ("sensitivity", "m.onnx", "--calib", "calib.npz", "--plot", "calib.npz"),
        ("compare", "m.onnx", "m.onnx", "--report", "m.onnx"),
        ("finetune", "m.onnx", "-o", "calib.npz", "--data", "calib.npz"),
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written(call: Cli, folder: Path, words: tuple[str, ...]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(call(*words, "--force"), 2, "is the path of another file of this command")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_was_written_before_is_replaced(call: Cli, folder: Path) -> None:
    words = ("encode", "m.onnx", "-o", "o.onnx", "--report", "o.html")
    assert call(*words).status == 0
    assert call(*words, "--force").status == 0
