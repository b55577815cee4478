"""The last screen of every command that writes a model: what matters first, then what was proven, cut and kept; what next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.cli.console import counted, in_bytes, quantity, say, table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Row", "by_reason", "change", "closing", "costs", "counts", "most_changed", "quality", "summary"]

Row = tuple[str, str, str, str]
"""What is compared, before, after, and the ratio."""
_STYLES = {"good": "green", "worse": "yellow", "collapsed": "bold red", "unknown": "bold red"}
"""How the line about accuracy is printed, by the level of `onnxprune.driver.judgement.Level`."""
_SHOWN = 5
"""Layers that changed most, and reasons, which are listed."""


def change(name: str, before: int, after: int) -> Row:
    """A row with bytes."""
    return name, in_bytes(before), in_bytes(after), f"{after / max(before, 1):.3f}"


def counts(name: str, before: int, after: int) -> Row:
    """A row with a count."""
    return name, quantity(before), quantity(after), f"{after / max(before, 1):.3f}"


def costs(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> list[Row]:
    """The rows with MACs and parameters; none where these are not known."""
    if not before or not after:
        return []
    return [counts("MACs", before["macs"], after["macs"]), counts("parameters", before["params"], after["params"])]


def quality(judged: Mapping[str, Any] | None) -> tuple[list[Row], str]:
    """The rows with the score and the agreement of a `Judgement`, as plain data; and on which samples."""
    score, drift = (judged or {}).get("score"), (judged or {}).get("drift")
    rows, where = [], ""
    if score:
        name = "accuracy (top1)" if score["metric"] == "top1" else score["metric"]
        points = f"{100 * (score['pruned'] - score['original']):+.1f} points"
        rows.append((name, f"{score['original']:.1%}", f"{score['pruned']:.1%}", points))
        where = f"on {counted(score['samples'], 'sample')} ({score['source']})"
    if drift:
        if drift["classes"]:
            rows.append(("agreement with the original", "100.0%", f"{drift['agreement']:.1%}", ""))
        else:
            rows.append(("cosine with the original", "1.000", f"{drift['cosine']:.3f}", ""))
        where = where or f"on {counted(drift['samples'], 'sample')} ({drift['source']})"
    return rows, where


def summary(out: Console, title: str, judged: Mapping[str, Any] | None, rows: Sequence[Row], remedy: str = "") -> None:
    """Print what matters: accuracy, then latency, file size, MACs and parameters; and a line that says whether accuracy is lost.

    Args:
        out: where.
        title: from which file to which.
        judged: a `Judgement`, as plain data.
        rows: the costs.
        remedy: what mends a bad result.
    """
    known, where = quality(judged)
    say(out, title, style="bold")
    listed = table("", "", "before", "after", "ratio")
    for row in (*known, *rows):
        listed.add_row(*row)
    out.print(listed)
    if not judged:
        return
    lost = judged["level"] in {"collapsed", "unknown"}
    text = f"judged {where}" if where and not lost else judged["text"]
    if judged["level"] != "good" and remedy:
        text = f"{text}. {remedy}"
    say(out, text, style=_STYLES[judged["level"]])


def most_changed(out: Console, what: str, rows: Sequence[tuple[str, int, int]], *, every: bool) -> None:
    """List the layers that changed most, with what they had and have.

    Args:
        out: where.
        what: the title of the first column.
        rows: name, old and new width.
        every: whether all are listed.
    """
    changed = sorted((row for row in rows if row[1] != row[2]), key=lambda row: (row[2] / max(row[1], 1), row[0]))
    shown = sorted(rows, key=lambda row: row[2] / max(row[1], 1)) if every else changed[:_SHOWN]
    if not shown:
        return
    listed = table("", what, "was", "is", "share")
    for name, old, new in shown:
        listed.add_row(name, str(old), str(new), f"{new / max(old, 1):.2f}")
    out.print(listed)
    if not every and (left := len(rows) - len(shown)):
        say(out, f"... and {left} more, of which {len(changed) - len(shown)} changed; --all lists all")


def by_reason(out: Console, found: Sequence[tuple[str, str]], *, every: bool) -> None:
    """Say what stayed, a line for each reason, the most frequent first.

    Args:
        out: where.
        found: of everything that stayed its name and the reason.
        every: whether all names and reasons are listed.
    """
    reasons = Counter(why for _, why in found)
    for why, count in reasons.most_common(None if every else _SHOWN):
        names = [name for name, reason in found if reason == why]
        told = ", ".join(names) if every else names[0] + (f" and {count - 1} more" if count > 1 else "")
        say(out, f"stayed: {told}: {why}")
    if not every and len(reasons) > _SHOWN:
        say(out, f"... and {counted(len(reasons) - _SHOWN, 'more reason')}; --all lists all")


def closing(out: Console, commands: Sequence[str]) -> None:
    """Print what to do next: commands to copy, each on a line of its own that is never broken."""
    for number, command in enumerate(commands):
        out.print(f"{'next:' if number == 0 else '     '} {command}", soft_wrap=True)
