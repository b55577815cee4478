"""What `prune`, `plan`, `apply`, `verify` and `sensitivity` report, as tables, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.cli.console import bar, console, counted, notes, say, table
from onnxprune.cli.summary import by_reason, change, closing, counts, most_changed, summary
from onnxprune.cli.tables import agreement, rest, restored, surgery, verdict
from onnxprune.cli.timing_tables import ratio
from onnxprune.driver.proof import few
from onnxprune.pruning.lossless.search import REMOVAL_KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from onnxprune.cli.summary import Row
    from onnxprune.driver.report import Report
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.verify.drift import Drift
    from onnxprune.verify.verdicts import Check

__all__ = ["applied", "planned", "pruning", "sensitivities", "verified"]

_SHOWN = 40
"""Groups listed before the rest is counted."""
_BAR = 16
"""Columns of the longest bar."""


def pruning(report: Report, output: str, *, remedy: str = "", commands: Sequence[str] = (), every: bool = False) -> None:
    """What `prune` did.

    Args:
        report: what happened.
        output: what was written.
        remedy: what mends a bad result.
        commands: what to do next.
        every: whether all groups and reasons are listed.
    """
    out = console()
    judged = report.judgement.to_dict() if report.judgement else None
    summary(out, f"{report.model} -> {output}", judged, list(_costs(report)), remedy)
    metric = report.requested.partition("=")[0]
    if report.lossless:
        _lossless(out, report.lossless)
    asked = f"--max-drop {report.max_drop}: " if report.max_drop else ""
    if metric in report.obtained:
        say(out, f"{asked}requested {report.requested}, obtained {metric}={report.obtained[metric]:.3f}")
    if report.tried:
        say(out, f"{counted(len(report.tried), 'target')} tried")
    if report.verification and metric != "lossless":
        verdict(out, dataclasses.asdict(report.verification), "pruned == masked")
    if not report.verification:
        say(out, "not verified")
    if report.repairs:
        restored(out, "repaired", report.repairs)
    if report.drift:
        agreement(out, report.drift)
    notes(out, [*([report.score.notice] if report.score and report.score.notice else []), *report.notes])
    for name, why in report.frozen.items():
        say(out, f"  {name}: {why}")
    most_changed(out, "group", [(group.id, group.size, group.kept) for group in report.groups], every=every)
    by_reason(out, list(_stayed(report)), every=every)
    closing(out, commands)


def _costs(report: Report) -> Iterator[Row]:
    """The costs, what matters most first."""
    before, after = report.before, report.after
    if report.benchmark:
        old, new = report.benchmark.rows[:2]
        name = f"latency, {new.provider}, batch {new.batch}, {counted(new.threads, 'thread')}"
        yield name, f"{old.latency.median_ms:.3g} ms", f"{new.latency.median_ms:.3g} ms", ratio(new)
    if told := report.predicted:
        yield "latency there, predicted", f"{told['before_ms']:.3g} ms", f"{told['after_ms']:.3g} ms", f"{told['ratio']:.3f}"
    yield change("file on disk", before.size, after.size)
    yield counts("MACs", before.macs, after.macs)
    yield counts("parameters", before.params, after.params)
    yield counts("channels in groups", sum(one.size for one in report.groups), sum(one.kept for one in report.groups))


def _stayed(report: Report) -> Iterator[tuple[str, str]]:
    """Groups that lost nothing and axes that cannot be pruned, each with the reason."""
    for group in report.groups:
        if group.kept == group.size:
            yield group.id, "the target is met without it"
    for refusal in report.refusals:
        for axis in refusal.get("axes", [refusal.get("axis", "")]):
            yield axis, f"{refusal['reason']}, {refusal['text']}"


def _lossless(out: Console, found: Mapping[str, Any]) -> None:
    """What went without loss, and the proof."""
    parts = ", ".join(f"{found[kind]} {kind}" for kind in REMOVAL_KINDS)
    kept = f", except {found['kept']} that alignment keeps (--align 1 removes them)" if found["kept"] else ""
    say(out, f"removed without loss: {parts}{kept}")
    if found["check"]:
        surgery(out, found["check"], "lossless == original")


def verified(check: Check, repaired: Sequence[str] = (), drift: Drift | None = None) -> None:
    """A proof that succeeded; and what repair has changed since in the model that was cut."""
    out = console()
    verdict(out, dataclasses.asdict(check), "pruned == masked" + (", before repair" if repaired else ""))
    if repaired:
        say(out, f"repaired since: {counted(len(repaired), 'weight')} ({few(repaired)}); all else is as the plan makes it")
    if drift:
        agreement(out, drift)


def sensitivities(found: dict[str, Any]) -> None:
    """What `sensitivity` measured: one row for each group, the most sensitive first; narrow, and readable in ascii."""
    out = console()
    groups = sorted(found["groups"], key=lambda group: -max((m["divergence"] for m in group["measured"]), default=0.0))
    most = max((m["divergence"] for group in groups for m in group["measured"]), default=1.0) or 1.0
    how = "cut and repaired" if found["repaired"] else "cut"
    say(out, f"{found['model']}: divergence of the outputs when one group is {how}", style="bold")
    listed = table("", "group", "size")
    columns = max((len(group["measured"]) for group in groups), default=0)
    for at in range(columns):
        shares = {round(group["measured"][at]["kept"] / group["size"], 1) for group in groups if at < len(group["measured"])}
        listed.add_column("/".join(f"{share:.0%}" for share in sorted(shares)), justify="right", no_wrap=True)
    listed.add_column("", no_wrap=True)
    for group in groups:
        errors = [m["divergence"] for m in group["measured"]]
        cells = [f"{error:.3g}" for error in errors] + [""] * (columns - len(errors))
        mark = bar((max(errors, default=0.0) / most) ** 0.5, out)
        listed.add_row(group["id"], str(group["size"]), *cells, mark)
    out.print(listed)
    say(
        out,
        "columns are what the group keeps. KL divergence of outputs [samples, classes], squared error over variance of others",
    )
    say(out, "bars by square root")


def planned(
    document: dict[str, Any], output: str, obtained: Mapping[str, float], *, commands: Sequence[str] = (), every: bool = False
) -> None:
    """What `plan` decided."""
    out = console()
    say(out, f"plan -> {output}", style="bold")
    listed = table("", "group", "positions", "keeps", "share")
    shown = None if every else _SHOWN
    for group in document["groups"][:shown]:
        kept = len(group["keep"])
        listed.add_row(group["id"], str(group["size"]), str(kept), f"{kept / group['size']:.2f}")
    out.print(listed)
    rest(out, len(document["groups"]), shown, "--all", "group")
    size, kept = sum(g["size"] for g in document["groups"]), sum(len(g["keep"]) for g in document["groups"])
    losing = sum(len(group["keep"]) < group["size"] for group in document["groups"])
    say(out, f"{losing} of {counted(len(document['groups']), 'group')} lose positions; {kept} of {size} positions remain")
    say(out, "obtained " + ", ".join(f"{metric}={fraction:.3f}" for metric, fraction in obtained.items()))
    closing(out, commands)


def applied(
    done: dict[str, Any],
    repairs: Sequence[Repaired] = (),
    *,
    remedy: str = "",
    commands: Sequence[str] = (),
    every: bool = False,
) -> None:
    """What `apply` wrote."""
    verb = "masked" if done["masked"] else "pruned"
    out, before, after = console(), done["before"], done["after"]
    rows = [change("file on disk", before["size"], after["size"])]
    rows += [counts(name, before[key], after[key]) for name, key in (("MACs", "macs"), ("parameters", "params"))]
    summary(out, f"{done['model']} -> {done['output']}", done["judgement"], rows, remedy)
    say(out, f"{counted(done['groups'], 'group')} {verb}")
    if done["verification"]:
        verdict(out, done["verification"], "masked == original with zeros" if done["masked"] else "pruned == masked")
    if repairs:
        restored(out, "repaired", repairs)
    most_changed(out, "group", done["widths"], every=every)
    closing(out, commands)
