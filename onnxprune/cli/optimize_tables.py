"""The report of `optimize` as tables, for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from onnxprune.cli.console import console, counted, in_bytes, say, table
from onnxprune.cli.summary import change, closing, costs, summary
from onnxprune.cli.tables import kernels, surgery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from onnxprune.driver.judgement import Judgement
    from onnxprune.driver.report import LeverReport, OptimizeReport

__all__ = ["optimized"]

_LAWS = {
    "lossless": "lossless == original",
    "subnormals": "without subnormal weights == with them",
    "depth": "without branches == the file with their sums bypassed",
    "channels": "pruned == masked",
    "precision": "with smooth activations == without",
    "zeros": "sparse == the same weights, dense",
}
"""What is proven of what a lever does."""


def optimized(report: OptimizeReport, output: str, judged: Judgement, *, commands: Sequence[str] = ()) -> None:
    """What `optimize` tried, chose and wrote; how good that is, and what to do next."""
    out = console()
    rows = [("latency", "1.000", f"{report.latency:.3f}", f"{report.latency:.3f}"), change("file on disk", *report.nbytes)]
    rows += costs(dataclasses.asdict(report.before), dataclasses.asdict(report.after))
    summary(out, f"{report.model} -> {output}", judged.to_dict(), rows, "Allow less with --max-drop, or give more samples")
    for lever in report.levers:
        if lever.check:
            surgery(out, dataclasses.asdict(lever.check), _LAWS.get(lever.lever, lever.lever))
    tried = table("", "tried", "latency", "size", report.score.metric, "")
    for row in report.tried:
        mark = "chosen" if row["chosen"] else "" if row["holds"] else "not enough"
        tried.add_row(row["mixture"], f"{row['latency']:.3f}", f"{row['size']:.3f}", f"{row['score']:.4f}", mark)
    out.print(tried)
    columns = ("lever", "choice", "latency", "size", report.score.metric, "outputs")
    gave = table("what each lever gave", *columns, text=("choice", "outputs"))
    for lever in report.levers:
        cells = (f"{lever.latency:.3f}", f"{lever.size:.3f}", f"{lever.score:.4f}")
        gave.add_row(lever.lever, lever.choice, *cells, _outputs(lever))
    out.print(gave)
    for lever in report.levers:
        _kept(out, lever)
    kernels(out, [layer.to_dict() for layer in report.kernels], every=True)
    score = report.score
    say(
        out,
        f"requested {report.requested}, obtained latency={report.latency:.3f}, measured afresh on one thread, and "
        f"size={report.size:.3f} ({in_bytes(report.nbytes[0])} -> {in_bytes(report.nbytes[1])})",
    )
    say(out, f"{score.metric} on {counted(score.samples, 'sample')}: {score.original:.4f} -> {score.pruned:.4f}; {report.judged}")
    for note in (*report.notes, *([score.notice] if score.notice else [])):
        say(out, f"note: {note}")
    if report.failed:
        mixture, why = list(report.failed.items())[-1]
        more = f" and {len(report.failed) - 1} more" if len(report.failed) > 1 else ""
        say(out, f"not built: {mixture}{more}: {why}")
    closing(out, commands)


def _outputs(lever: LeverReport) -> str:
    """How far outputs are from the original's after each thing that was done."""
    if lever.exact:
        return "equal"
    return ", ".join(f"{what}: relative error {drift.relative:.3f}" for what, drift in lever.drift.items())


def _kept(out: Console, lever: LeverReport) -> None:
    """What a lever left alone, by reason."""
    for why, count in Counter(one["why"] for one in lever.kept).items():
        names = [one["node"] or one["op"] for one in lever.kept if one["why"] == why]
        shown = ", ".join(names[:_NAMED]) + (f" and {count - _NAMED} more" if count > _NAMED else "")
        say(out, f"{lever.lever}: {counted(count, 'node')} left alone, {why}: {shown}")


_NAMED = 4
"""Nodes that a line names."""
