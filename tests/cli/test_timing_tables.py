"""Tables of timings at several widths."""

from __future__ import annotations

import pytest

from onnxprune.cli import console, timing_tables
from onnxprune.latency.benchmark import BenchReport, BenchRow, LatencyStats
from onnxprune.latency.interleave import Quartiles

MACHINE = {"cpu": "Some [R] CPU"}
QUARTILES = Quartiles(0.87, 0.85, 0.88)


def row(label: str, ratio: Quartiles | None = None, peak_mib: float | None = None) -> BenchRow:
    latency, notes = LatencyStats(0.134, 0.133, 0.136, 100, "cpu"), ("x[1] was guessed",)
    return BenchRow(label, "cpu", 1, 1, latency, ratio, 0.01, None, peak_mib, {}, notes)


@pytest.mark.parametrize("width", [0, 80, 100, 140])
def test_timings_fit(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns to print in; 0 is a pipe."""
    if width:
        monkeypatch.setattr(console, "_WHOLE", width)
    timing_tables.timings(BenchReport((row("original"), row("pruned", QUARTILES)), MACHINE))
    out = capsys.readouterr().out
    assert "0.134 (0.133-0.136)" in out
    assert "0.870 (0.850-0.880)" in out
    assert "cpu Some [R] CPU\n" in out
    assert out.count("note: x[1] was guessed\n") == 1
    assert "peak MiB" not in out
    timing_tables.timings(BenchReport((row("original"), row("pruned", QUARTILES, 12.3)), MACHINE))
    assert "peak MiB" in capsys.readouterr().out
