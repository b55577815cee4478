"""Pictures of sensitivity."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from command import DIGITS, refused, within
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


def test_what_is_no_format() -> None:
    with pytest.raises(OptionError, match=r"cannot draw \.gif; write one of \.svg, \.png, \.pdf"):
        curves(FOUND, io.BytesIO(), ".gif")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"pip install .onnxprune\[plot\]"):
        curves(FOUND, io.BytesIO(), ".svg")


def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    done = within("sensitivity", DIGITS, "--calib", "noise", "--plot", "x.bmp", cwd=tmp_path)
    refused(done, 2, "cannot draw .bmp")
    assert "phase" not in done.err


def test_every_curve_is_named_and_the_axis_starts_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    made: list[Any] = []
    add = figures.Figure.add_subplot

    def kept(self: Any, *given: Any, **options: Any) -> Any:
        made.append(add(self, *given, **options))
        return made[-1]

    monkeypatch.setattr(figures.Figure, "add_subplot", kept)
    groups = [
        {"id": f"group{n}", "size": 4, "measured": [{"kept": 2, "divergence": 0.1 + n}], "predicted": [0.9, 0.5, 0.2, 0.1]}
        for n in range(50)
    ]
    curves({"model": "m.onnx", "groups": groups}, io.BytesIO(), ".svg")
    (axes,) = made
    assert axes.get_ylim()[0] == 0
    (legend,) = axes.figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {group["id"] for group in groups}
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines() if line.get_label().startswith("group")}
    assert len(looks) == 40
