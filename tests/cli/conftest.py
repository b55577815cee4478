"""Fixtures of the command line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from command import Cli, net, within


@pytest.fixture
def call() -> Cli:
    return lambda *args: within(*args, cwd=Path.cwd())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(net(), path)
    return path
