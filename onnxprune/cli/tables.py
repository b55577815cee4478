"""Reports as tables, for people: what several commands print, and what `sparsify`, `quantize`, `encode` and `decode` did."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from onnxprune.cli.console import console as _console
from onnxprune.cli.console import counted, in_bytes, notes, quantity, say, table
from onnxprune.cli.summary import by_reason, change, closing, costs, counts, most_changed, summary
from onnxprune.cli.timing_tables import timings
from onnxprune.verify.verdicts import Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from onnxprune.driver.report import QuantReport, SparseReport
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.verify.drift import Drift

__all__ = [
    "agreement",
    "kernels",
    "quantized",
    "released",
    "rest",
    "restored",
    "sparse",
    "stored",
    "surgery",
    "verdict",
    "weights",
]

_SHOWN = 40
"""Weights listed before the rest is counted."""


def surgery(out: Console, check: Mapping[str, Any], law: str) -> None:
    """The verdict on the outputs: how many are equal as ``law`` says; which were not tested, and why."""
    found = Counter(one["verdict"] for one in check["outputs"])
    known = [f"{counted(found[kind], 'output')} {kind}" for kind in (Verdict.PROVEN, Verdict.TESTED) if found[kind]]
    if known:
        told = f"{' and '.join(known)} on {counted(check['runs'], 'input size')}, largest difference {check['error']:.1e}"
        say(out, f"surgery exact: {told} ({law})")
    for one in check["outputs"]:
        if one["verdict"] == Verdict.NOT_TESTED:
            say(out, f"surgery not tested: output {one['output']!r} {one['why']}")


def verdict(out: Console, check: Mapping[str, Any], law: str) -> None:
    """A proof of ``law`` that succeeded, and how it was done."""
    surgery(out, check, law)
    for note in check["notes"]:
        say(out, f"  {note}")


def rest(out: Console, count: int, shown: int | None, option: str, singular: str) -> None:
    """Say how many were not listed, and which option lists them."""
    if shown is not None and count > shown:
        say(out, f"... and {counted(count - shown, f'more {singular}')}; {option} lists all")


def restored(out: Console, what: str, repairs: Sequence[Repaired]) -> None:
    """How much nearer layers are to what they computed, since they were fitted."""
    before, after = (mean(getattr(done, which) for done in repairs) for which in ("before", "after"))
    layers = counted(len(repairs), "layer")
    say(out, f"{what} {layers}: mean error of their outputs {before:.1%} -> {after:.1%} of its variance")


def agreement(out: Console, drift: Drift) -> None:
    """How far outputs are from the original's."""
    say(
        out,
        f"outputs against the original's, {counted(drift.samples, 'sample')} ({drift.source}): cosine {drift.cosine:.4f}, "
        f"relative error {drift.relative:.3f}, top-1 agreement {drift.agreement:.1%}",
    )


def sparse(report: SparseReport, output: str, *, remedy: str = "", commands: Sequence[str] = (), every: bool = False) -> None:
    """What `sparsify` did."""
    out = _console()
    rows = [change("file on disk", *report.size), change("file after gzip", *report.gzip)]
    told = report.to_dict()
    rows += costs(told["before"], told["after"])
    rows += [counts("weights that are not zero", report.parameters, report.parameters - report.zeros)]
    summary(out, f"{report.model} -> {output}", report.judgement.to_dict() if report.judgement else None, rows, remedy)
    layers, overall = counted(len(report.layers), "layer"), report.zeros / max(report.parameters, 1)
    shared = f", shared out by {report.allocation}" if report.allocation else ""
    say(out, f"{report.pattern}, by {report.method}{shared}")
    obtained = f"{report.sparsity:.3f} in {layers}, {overall:.3f} of all weights"
    if report.latency is not None and report.spread:
        low, high = report.spread
        say(
            out, f"obtained latency={report.latency:.3f}, half of the rounds from {low:.3f} to {high:.3f}, measured on one thread"
        )
    say(out, f"requested {report.requested}, obtained a sparsity of {obtained}")
    if report.verification:
        verdict(out, dataclasses.asdict(report.verification), "sparse == original with the same weights")
    if report.permuted:
        say(out, f"channels changed places in {counted(len(report.permuted), 'group')}: proven to compute the same")
    if report.repairs:
        restored(out, "refit", report.repairs)
    if report.drift:
        agreement(out, report.drift)
    notes(out, report.notes)
    kernels(out, [layer.to_dict() for layer in report.kernels], every=every)
    most_changed(
        out, "layer, weights that are not zero", [(one.weight, one.size, one.kept) for one in report.layers], every=every
    )
    ends = [(name, "dense, because no other layer comes before or after; --ends includes them") for name in report.dense]
    by_reason(out, [*ends, *((name, f"dense: {why}") for name, why in report.left.items())], every=every)
    closing(out, commands)


def quantized(report: QuantReport, output: str, *, remedy: str = "", commands: Sequence[str] = (), every: bool = False) -> None:
    """What `quantize` did."""
    out = _console()
    told = report.to_dict()
    rows = [change("file on disk", *report.size), *costs(told["before"], told["after"])]
    summary(out, f"{report.model} -> {output}", report.judgement.to_dict() if report.judgement else None, rows, remedy)
    if report.verification:
        verdict(out, dataclasses.asdict(report.verification), "prepared == original, before int8")
        say(out, "int8 is an approximation of that, which is measured and not proven")
    if report.drift:
        agreement(out, report.drift)
    recipe = report.recipe
    scales = "one scale for each channel" if recipe["per_channel"] else "one scale for each weight"
    bits = "7 bits" if recipe["reduce_range"] == "yes" else "8 bits"
    say(out, f"{counted(report.weights, 'weight')} in {bits}, {scales}; activations {recipe['activations']}, {recipe['method']}")
    if report.rounded:
        say(out, f"{counted(report.rounded, 'weight')} rounded so that layers output what they did on samples")
    before, after = (zeros / max(report.elements, 1) for zeros in report.zeros)
    say(out, f"zeros: {before:.1%} of the weights before, {after:.1%} after; every zero stayed zero")
    notes(out, [*([report.score.notice] if report.score and report.score.notice else []), *report.notes])
    listed = table("", "operator", "in int8", "in float")
    kept = Counter(node["op"] for node in report.kept)
    for op in sorted({*report.nodes, *kept}):
        listed.add_row(op, str(report.nodes.get(op, 0)), str(kept[op]))
    out.print(listed)
    by_reason(out, [(node["node"] or node["op"], f"{node['op']} in float: {node['why']}") for node in report.kept], every=every)
    closing(out, commands)


def stored(done: Mapping[str, Any], law: str, *, commands: Sequence[str] = (), every: bool = False) -> None:
    """What `encode` or `decode` wrote; ``law`` is what was proven of it."""
    out = _console()
    size, dense = done["bytes"], done["dense_bytes"] + done["rest_bytes"]
    bound = done["bound_bytes"] + done["rest_bytes"]
    rows = [change("file on disk", done["before_bytes"], size), change("of its weights, dense", dense, size)]
    for kind, sizes in done.get("compressed", {}).items():
        rows.append(change(f"packed with {kind}", sizes["dense"], sizes["output"]))
    rows += costs(done["before"], done["after"])
    summary(out, f"{done['source']} -> {done['output']}", done["judgement"], rows)
    verdict(out, done["verification"], law)
    zeros = f"{done['sparsity']:.1%} of {quantity(done['elements'])} elements are zero"
    of = f"{size / dense:.3f} of dense ({in_bytes(dense)})"
    say(out, f"{done['output']}: {in_bytes(size)}, {of}; {zeros}, entropy bound {bound / dense:.3f}")
    notes(out, done["notes"])
    if "benchmark" in done:
        timings(done["benchmark"])
    encoded = [row for row in done["weights"] if row["encoding"] != "dense"]
    if encoded:
        weights(out, encoded, f"{counted(len(encoded), 'weight')} encoded", None if every else _SHOWN)
    kernels(out, done["kernels"], every=every)
    closing(out, commands)


def released(done: Mapping[str, Any], *, commands: Sequence[str] = (), every: bool = False) -> None:
    """What `release` wrote."""
    out, gone = _console(), done["released"]
    size = change("file on disk", done["before_bytes"], done["bytes"])
    summary(out, f"{done['source']} -> {done['output']}", done["judgement"], [size, *costs(done["before"], done["after"])])
    verdict(out, done["verification"], "released == original, where nobody overrides")
    named = ", ".join(gone if every else gone[:_SHOWN])
    say(out, f"{counted(len(gone), 'input')} released: {named}")
    rest(out, len(gone), None if every else _SHOWN, "--all", "input")
    closing(out, commands)


def kernels(out: Console, rows: Sequence[Mapping[str, Any]], *, every: bool) -> None:
    """List layers with sparse kernels."""
    if not rows:
        return
    shown = None if every else _SHOWN
    title = f"{counted(len(rows), 'layer')} with sparse kernels"
    listed = table(title, "weight", "shape", "kernel", "pattern", "density", "time", text=("shape", "kernel", "pattern"))
    for row in rows[:shown]:
        shape = "x".join(map(str, row["shape"]))
        time = "" if row["ratio"] is None else f"{row['ratio']:.2f} ×"
        listed.add_row(row["weight"], shape, row["operator"], row["pattern"], f"{row['stored']:.1%}", time)
    out.print(listed)
    rest(out, len(rows), shown, "--all", "layer")


def weights(out: Console, rows: Sequence[Mapping[str, Any]], title: str, shown: int | None = _SHOWN) -> None:
    """List weights with their zeros, and how they are stored."""
    listed = table(
        title, "weight", "shape", "type", "zeros", "pattern", "stored as", "bytes", text=("shape", "type", "pattern", "stored as")
    )
    for row in rows[:shown]:
        shape = "x".join(map(str, row["shape"]))
        listed.add_row(
            row["name"], shape, row["dtype"], f"{row['sparsity']:.1%}", row["pattern"], row["encoding"], quantity(row["stored"])
        )
    out.print(listed)
    rest(out, len(rows), shown, "--all", "weight")
