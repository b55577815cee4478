"""The program that measures the peak memory of one model; what it measures is in test_benchmark."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from onnxprune.latency import peak_memory


def test_the_program_answers_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = {"model": str(tmp_path / "gone.onnx"), "provider": "cpu", "threads": 1, "seed": 0, "inputs": [], "custom_ops": []}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(job)))
    # This process keeps its peak: resetting it is the business of a fresh one.
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)
    assert peak_memory.main() == 1
    assert "cannot load" in json.loads(capsys.readouterr().out)["error"]
