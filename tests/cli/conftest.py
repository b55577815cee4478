"""Fixtures of the command line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from command import Cli, net, within
from onnxprune.cli import console


@pytest.fixture
def call() -> Cli:
    return lambda *args: within(*args, cwd=Path.cwd())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(net(), path)
    return path


@pytest.fixture(params=[0, 80, 100, 140])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Columns to print in; 0 is a pipe."""
    columns = int(request.param)
    if columns:
        monkeypatch.setattr(console, "_WHOLE", columns)
    return columns
