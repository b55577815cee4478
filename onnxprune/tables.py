"""Reports as tables, for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from onnxprune.bench import BenchReport, BenchRow
from onnxprune.report import Report
from onnxprune.verify import Check

__all__ = ["applied", "inspection", "planned", "pruning", "timings", "verified"]

_SHOWN = 40
"""Groups or refusals listed before the rest is counted."""


def _console() -> Console:
    console = Console()
    if not console.is_terminal:  # a pipe or a file takes whole lines
        console = Console(width=140)
    return console


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def quantity(value: float) -> str:
    """A count with a unit prefix: 4.09 G, 25.6 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}" if value / limit < 100 else f"{value / limit:.0f} {unit}"
    return f"{value:.0f}"


def pruning(report: Report, output: str) -> None:
    """What `prune` did."""
    console = _console()
    table = _table(f"{report.model} -> {output}", "", "original", "pruned", "ratio")
    before, after = report.before, report.after
    rows = {"MACs": ("macs", before.macs, after.macs), "parameters": ("params", before.params, after.params)}
    for name, (metric, old, new) in rows.items():
        table.add_row(name, quantity(old), quantity(new), f"{report.obtained[metric]:.3f}")
    table.add_row("bytes", quantity(before.size), quantity(after.size), f"{report.obtained['size']:.3f}")
    channels = (sum(group.size for group in report.groups), sum(group.kept for group in report.groups))
    table.add_row("channels in groups", *(str(count) for count in channels), f"{report.obtained['channels']:.3f}")
    if report.benchmark:
        old_row, new_row = report.benchmark.rows[:2]
        table.add_row(_latency_name(new_row), _milliseconds(old_row), _milliseconds(new_row), _ratio(new_row))
    console.print(table)
    metric = report.requested.partition("=")[0]
    console.print(f"requested {report.requested}, obtained {metric}={report.obtained[metric]:.3f}", highlight=False)
    if report.verification:
        verified(report.verification)
    else:
        console.print("not verified")
    if report.drift:
        drift = report.drift
        console.print(
            f"outputs against the original's, {drift.samples} samples ({drift.source}): cosine {drift.cosine:.4f}, "
            f"relative error {drift.relative:.3f}, top-1 agreement {drift.agreement:.1%}",
            highlight=False,
        )
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
    for name, why in report.frozen.items():
        console.print(f"  {name}: {why}", highlight=False, markup=False)


def _latency_name(row: BenchRow) -> str:
    return f"latency, {row.provider}, batch {row.batch}, {row.threads} thread{'s' * (row.threads > 1)}"


def _milliseconds(row: BenchRow) -> str:
    return f"{row.latency.median_ms:.3g} ms"


def _ratio(row: BenchRow) -> str:
    return "" if row.ratio is None else f"{row.ratio.median:.3f} ({row.ratio.q1:.3f} to {row.ratio.q3:.3f})"


def verified(check: Check) -> None:
    """The outcome of the proof."""
    text = f"largest difference {check.error:.1e} of the largest output, {check.runs} input sizes"
    if check.ok:
        _console().print(f"verified: pruned == masked ({text})", highlight=False)
    else:
        _console().print(f"NOT EQUAL: {check.text}", highlight=False, markup=False)


def inspection(found: dict[str, Any], *, layers: bool) -> None:
    """What `inspect` found."""
    console = _console()
    cost = found["cost"]
    console.print(
        f"{found['model']}: opset {found['opset']}, {quantity(cost['macs'])} MACs, {quantity(cost['params'])} parameters, "
        f"{quantity(cost['size'])} bytes",
        highlight=False,
    )
    table = _table(f"{len(found['groups'])} groups can be pruned", "group", "positions", "constants", "exact", "read by")
    for group in found["groups"][:_SHOWN]:
        ops = Counter(member["op"] for member in group["members"])
        readers = ", ".join(f"{op} {count}" if count > 1 else op for op, count in ops.most_common(4))
        table.add_row(group["id"], str(group["size"]), str(len(group["members"])), "yes" if group["exact"] else "no", readers)
    console.print(table)
    _rest(console, len(found["groups"]), "groups")
    if found["refusals"]:
        table = _table(f"{len(found['refusals'])} axes cannot", "axis", "reason", "node", "why")
        for column in table.columns:
            column.justify = "left"
        for refusal in found["refusals"][:_SHOWN]:
            table.add_row(refusal["axis"], refusal["reason"], refusal["node"], refusal["text"])
        console.print(table)
        _rest(console, len(found["refusals"]), "axes")
    if layers:
        table = _table("layers", "node", "op", "MACs", "parameters", "axes")
        for layer in found["layers"]:
            table.add_row(layer["node"], layer["op"], quantity(layer["macs"]), quantity(layer["params"]), layer["axes"])
        console.print(table)


def _rest(console: Console, count: int, what: str) -> None:
    if count > _SHOWN:
        console.print(f"... and {count - _SHOWN} more {what}; --json lists all")


def planned(document: dict[str, Any], output: str) -> None:
    """What `plan` decided."""
    console = _console()
    table = _table(f"plan -> {output}", "group", "positions", "keeps", "share")
    for group in document["groups"][:_SHOWN]:
        kept = len(group["keep"])
        table.add_row(group["id"], str(group["size"]), str(kept), f"{kept / group['size']:.2f}")
    console.print(table)
    _rest(console, len(document["groups"]), "groups")


def applied(done: dict[str, Any]) -> None:
    """What `apply` wrote."""
    verb = "masked" if done["masked"] else "pruned"
    _console().print(f"{done['output']}: {done['groups']} groups {verb}, {quantity(done['bytes'])} bytes", highlight=False)


def timings(report: BenchReport) -> None:
    """What `benchmark` measured."""
    console = _console()
    columns = (
        "model",
        "provider",
        "batch",
        "threads",
        "latency ms (quartiles)",
        "ratio to first",
        "session s",
        "peak MiB",
    )
    table = _table(", ".join(f"{key} {value}" for key, value in report.machine.items()), *columns)
    for row in report.rows:
        timing = row.latency
        table.add_row(
            row.label,
            row.provider,
            str(row.batch),
            str(row.threads),
            f"{timing.median_ms:.3g} ({timing.q1_ms:.3g} to {timing.q3_ms:.3g})",
            _ratio(row),
            f"{row.session_s:.3f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
        )
    console.print(table)
    for note in dict.fromkeys(note for row in report.rows for note in row.notes):
        console.print(f"note: {note}", highlight=False, markup=False)
