"""What commands about sweeps print for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.cli.console import console, counted, in_bytes, say, table
from onnxprune.cli.summary import closing
from onnxprune.cli.tables import rest

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["picked", "planned", "status", "swept"]

_SHOWN = 20
"""Rows that are listed before the rest is counted."""


def planned(document: Mapping[str, Any]) -> None:
    """The tasks of a sweep that is not run."""
    out, tasks, search = console(), document["tasks"], document["asked"]["search"]
    told = f"up to {counted(search, 'setting')} of each model" if search else counted(len(tasks), "task")
    say(out, f"{told} -> {document['store']}", style="bold")
    listed = table("", "model", *([] if search else ["settings"]), "memory", text=("settings",))
    for model in document["memory"] if search else ():
        listed.add_row(model, in_bytes(document["memory"][model]))
    for task in tasks:
        listed.add_row(task["model"], _settings(task), in_bytes(document["memory"][task["model"]]))
    out.print(listed)


def swept(document: Mapping[str, Any]) -> None:
    """What a sweep came to."""
    out = console()
    reused = f", {document['reused']} of them were there already" if document["reused"] else ""
    given_up = f", {document['given_up']} given up before they were built" if document.get("given_up") else ""
    told = f"{counted(document['tasks'], 'task')}: {document['done']} done, {document['failed']} failed{reused}{given_up}"
    say(out, f"{document['store']}: {told}; {document['seconds']:.1f} s", style="bold")
    _results(out, [row for row in document["rows"] if row["front"]], every=False)
    _failures(out, document["rows"], every=False)
    closing(out, document["next"])


def status(document: Mapping[str, Any], *, every: bool) -> None:
    """What of a sweep is done and what is left; ``every``: with every result and every failure."""
    out = console()
    told = ", ".join(f"{document[state]} {state}" for state in ("done", "failed", "waiting"))
    say(out, f"{document['store']}: {counted(document['tasks'], 'task')}: {told}", style="bold")
    done = [row for row in document["rows"] if row["state"] == "done"]
    _results(out, done if every else [row for row in done if row["front"]], every=every)
    _failures(out, document["rows"], every=every)


def picked(document: Mapping[str, Any]) -> None:
    """The best results, and where they are."""
    out, rows = console(), document["picked"]
    _results(out, rows, every=True)
    for row in rows:
        say(out, f"{row['model']}: {row.get('output') or row['file']}")


def _results(out: Console, rows: Sequence[Mapping[str, Any]], *, every: bool) -> None:
    if not rows:
        return
    title = "" if every else "on the Pareto front"
    listed = table(title, "model", "settings", "score", "drop", "agreement", "latency", "size", "MACs", text=("settings",))
    shown = None if every else _SHOWN
    for row in rows[:shown]:
        quality = (_share(row["score"]), _share(row["drop"]), _share(row["agreement"]))
        costs = (_ratio(row["latency_ratio"]), _ratio(row["bytes_ratio"]), _ratio(row["macs_ratio"]))
        listed.add_row(row["model"], _settings(row), *quality, *costs)
    out.print(listed)
    rest(out, len(rows), shown, "sweep status --all", "result")


def _failures(out: Console, rows: Iterable[Mapping[str, Any]], *, every: bool) -> None:
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed if every else failed[:_SHOWN]:
        settings = _settings(row)
        say(out, f"failed: {row['model']}{f' ({settings})' if settings else ''}: {row['error']}")
    rest(out, len(failed), None if every else _SHOWN, "sweep status --all", "failure")


def _settings(row: Mapping[str, Any]) -> str:
    return ", ".join(value if name == "target" else f"{name} {value}" for name, value in row["settings"].items())


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
