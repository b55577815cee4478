"""Pictures of sensitivity."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from onnxprune.cli.plots import FORMATS, curves
from onnxprune.errors import OptionError

FOUND: dict[str, Any] = {
    "model": "net.onnx",
    "groups": [
        {"id": f"w{rank}:0", "size": 4, "measured": [{"kept": 2, "divergence": 0.1 * rank}], "predicted": [0, 0.05, 0.1, 0.4, 1]}
        for rank in range(12)
    ],
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(suffix: str) -> None:
    file = io.BytesIO()
    curves(FOUND, file, suffix)
    assert file.getvalue().startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])


def test_the_most_sensitive_groups_are_named() -> None:
    file = io.BytesIO()
    curves(FOUND, file, ".svg")
    text = file.getvalue().decode()
    assert "net.onnx" in text
    assert "w11:0" in text
    assert "w0:0" not in text


def test_what_is_no_format() -> None:
    with pytest.raises(OptionError, match=r"cannot draw \.gif; write one of \.svg, \.png, \.pdf"):
        curves(FOUND, io.BytesIO(), ".gif")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"pip install .onnxprune\[plot\]"):
        curves(FOUND, io.BytesIO(), ".svg")
