"""What was timed, as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.cli.console import console, notes, say, table

if TYPE_CHECKING:
    from onnxprune.latency.benchmark import BenchReport, BenchRow

__all__ = ["ratio", "timings"]


def timings(report: BenchReport) -> None:
    """What `benchmark` measured."""
    out = console()
    say(out, ", ".join(f"{key} {value}" for key, value in report.machine.items()))
    memory = any(row.peak_mib is not None for row in report.rows)
    columns = ["model", "provider", "batch", "latency ms (quartiles)", "ratio to first", "load s", *["peak MiB"] * memory]
    rows = table("", *columns, text=("provider",))
    for row in report.rows:
        timing = row.latency
        cells = [
            row.label,
            row.provider,
            str(row.batch),
            f"{timing.median_ms:.3g} ({timing.q1_ms:.3g}-{timing.q3_ms:.3g})",
            ratio(row),
            f"{row.session_s:.3f}",
        ]
        peak = "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        rows.add_row(*cells, *[peak] * memory)
    out.print(rows)
    notes(out, dict.fromkeys(note for row in report.rows for note in row.notes))


def ratio(row: BenchRow) -> str:
    """The latency beside the first candidate's, with quartiles; empty for the first."""
    return "" if row.ratio is None else f"{row.ratio.median:.3f} ({row.ratio.q1:.3f}-{row.ratio.q3:.3f})"
