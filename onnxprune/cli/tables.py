"""Reports as tables, for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import mean
from typing import Any

from rich.console import Console

from onnxprune.cli.console import console as _console
from onnxprune.cli.console import counted, quantity
from onnxprune.cli.console import in_bytes as _bytes
from onnxprune.cli.console import notes as _notes
from onnxprune.cli.console import say as _say
from onnxprune.cli.console import table as _table
from onnxprune.cli.timing_tables import ratio, timings
from onnxprune.driver.proof import few
from onnxprune.driver.report import QuantReport, Report, SparseReport
from onnxprune.latency.benchmark import BenchRow
from onnxprune.linear.reconstruction import Repaired
from onnxprune.pruning.lossless.search import REMOVAL_KINDS
from onnxprune.verify.drift import Drift
from onnxprune.verify.metrics import QualityScore
from onnxprune.verify.verdicts import Check, Verdict

__all__ = [
    "applied",
    "inspection",
    "planned",
    "pruning",
    "quantized",
    "sensitivities",
    "sparse",
    "stored",
    "surgery",
    "verified",
]

_SHOWN = 40
"""Groups or reasons listed before the rest is counted."""
_FEW = 8
"""Matrices that stay dense listed before the rest is counted."""
_REFUSAL = ("axis", "reason", "node", "why")
_SPARSE = 0.1
"""Zeros from which `inspect` lists a weight: rounding leaves some in any."""


def pruning(report: Report, output: str) -> None:
    """What `prune` did."""
    console = _console()
    table = _table(f"{report.model} -> {output}", "", "original", "pruned", "ratio")
    before, after = report.before, report.after
    rows = {"MACs": ("macs", before.macs, after.macs), "parameters": ("params", before.params, after.params)}
    for name, (metric, old, new) in rows.items():
        table.add_row(name, quantity(old), quantity(new), f"{report.obtained[metric]:.3f}")
    table.add_row("size", _bytes(before.size), _bytes(after.size), f"{report.obtained['size']:.3f}")
    channels = (sum(group.size for group in report.groups), sum(group.kept for group in report.groups))
    table.add_row("channels in groups", *(str(count) for count in channels), f"{report.obtained['channels']:.3f}")
    if report.benchmark:
        old_row, new_row = report.benchmark.rows[:2]
        name = f"latency, {new_row.provider}, batch {new_row.batch}, {counted(new_row.threads, 'thread')}"
        table.add_row(name, _milliseconds(old_row), _milliseconds(new_row), ratio(new_row))
    console.print(table)
    metric = report.requested.partition("=")[0]
    if report.lossless:
        _lossless(console, report.lossless)
    if metric in report.obtained:
        _say(console, f"requested {report.requested}, obtained {metric}={report.obtained[metric]:.3f}")
    if report.verification and metric != "lossless":
        verified(report.verification)
    if not report.verification:
        _say(console, "not verified")
    if report.repairs:
        _repairs(console, "repaired", report.repairs)
    if report.drift:
        _drift(console, report.drift)
    if report.score:
        _scored(console, report.score, f"; {counted(len(report.tried), 'target')} tried")
    _notes(console, report.notes)
    for name, why in report.frozen.items():
        _say(console, f"  {name}: {why}")


def _lossless(console: Console, found: Mapping[str, Any]) -> None:
    """What went without loss, and the proof."""
    parts = ", ".join(f"{found[kind]} {kind}" for kind in REMOVAL_KINDS)
    kept = f", except {found['kept']} that alignment keeps (--align 1 removes them)" if found["kept"] else ""
    _say(console, f"removed without loss: {parts}{kept}")
    if found["check"]:
        surgery(console, found["check"], "lossless == original")


def surgery(console: Console, check: Mapping[str, Any], law: str) -> None:
    """The verdict on the outputs: how many are equal as ``law`` says; which were not tested, and why."""
    counts = Counter(one["verdict"] for one in check["outputs"])
    known = [f"{counted(counts[verdict], 'output')} {verdict}" for verdict in (Verdict.PROVEN, Verdict.TESTED) if counts[verdict]]
    if known:
        told = f"{' and '.join(known)} on {counted(check['runs'], 'input size')}, largest difference {check['error']:.1e}"
        _say(console, f"surgery exact: {told} ({law})")
    for one in check["outputs"]:
        if one["verdict"] == Verdict.NOT_TESTED:
            _say(console, f"surgery not tested: output {one['output']!r} {one['why']}")


def _milliseconds(row: BenchRow) -> str:
    return f"{row.latency.median_ms:.3g} ms"


def verified(check: Check, repaired: Sequence[str] = (), drift: Drift | None = None) -> None:
    """A proof that succeeded; and what repair has changed since in the model that was cut."""
    console = _console()
    _verified(console, dataclasses.asdict(check), "pruned == masked" + (", before repair" if repaired else ""))
    if repaired:
        _say(console, f"repaired since: {counted(len(repaired), 'weight')} ({few(repaired)}); all else is as the plan makes it")
    if drift:
        _drift(console, drift)


def _verified(console: Console, check: Mapping[str, Any], law: str) -> None:
    """A proof of ``law`` that succeeded, and how it was done."""
    surgery(console, check, law)
    for note in check["notes"]:
        _say(console, f"  {note}")


def sensitivities(found: dict[str, Any]) -> None:
    """What `sensitivity` measured: one row for each group, the most sensitive first."""
    console = _console()
    groups = sorted(found["groups"], key=lambda group: -max((m["divergence"] for m in group["measured"]), default=0.0))
    most = max((m["divergence"] for group in groups for m in group["measured"]), default=1.0) or 1.0
    how = "cut and repaired" if found["repaired"] else "cut"
    table = _table(f"{found['model']}: divergence of the outputs when one group is {how}", "group", "kind", "size")
    columns = max((len(group["measured"]) for group in groups), default=0)
    for at in range(columns):
        shares = {round(group["measured"][at]["kept"] / group["size"], 1) for group in groups if at < len(group["measured"])}
        table.add_column(f"keeps {'/'.join(f'{share:.0%}' for share in sorted(shares))}", justify="right")
    table.add_column("", no_wrap=True)
    for group in groups:
        errors = [m["divergence"] for m in group["measured"]]
        cells = [f"{error:.4f}" for error in errors] + [""] * (columns - len(errors))
        bar = "█" * max(1, round(24 * (max(errors, default=0.0) / most) ** 0.5))
        table.add_row(group["id"], group["kind"], str(group["size"]), *cells, bar)
    console.print(table)
    _say(
        console,
        "KL divergence of outputs [samples, classes], squared error over variance of others; bars by square root",
    )


def inspection(found: dict[str, Any], *, layers: bool, every: bool = False) -> None:
    """What `inspect` found; axes that cannot be pruned are listed by reason, or with ``every`` one by one."""
    console = _console()
    shown = None if every else _SHOWN
    cost = found["cost"]
    _say(
        console,
        f"{found['model']}: opset {found['opset']}, {quantity(cost['macs'])} MACs, {quantity(cost['params'])} parameters, "
        f"{_bytes(cost['size'])}",
    )
    title = f"{counted(len(found['groups']), 'group')} can be pruned"
    table = _table(title, "group", "kind", "positions", "constants", "exact", "read by", text=("kind", "exact", "read by"))
    for group in found["groups"][:shown]:
        ops = Counter(member["op"] for member in group["members"])
        readers = ", ".join(f"{op} {count}" if count > 1 else op for op, count in ops.most_common(4))
        exact, members = "yes" if group["exact"] else "no", str(len(group["members"]))
        table.add_row(group["id"], group["kind"], str(group["size"]), members, exact, readers)
    if found["groups"]:
        console.print(table)
    else:
        _say(console, title)
    _rest(console, len(found["groups"]), shown, "--all", "group")
    if found["refusals"]:
        _refusals(console, found, shown)
    if layers:
        title = f"{counted(len(found['layers']), 'layer')} with weights or MACs"
        table = _table(title, "node", "op", "MACs", "parameters", "axes", text=("op", "axes"))
        for layer in found["layers"]:
            table.add_row(layer["node"], layer["op"], quantity(layer["macs"]), quantity(layer["params"]), layer["axes"])
        console.print(table)
    if "sparsity" in found:
        _sparsities(console, found["sparsity"], every=every)


def _refusals(console: Console, found: Mapping[str, Any], shown: int | None) -> None:
    """Axes with the reason why they stay: one line for each reason, or where all are shown for each axis."""
    pruned = {f"{member['value']}:{member['axis']}" for group in found["groups"] for member in group["members"]}
    axes = {axis for refusal in found["refusals"] for axis in refusal["axes"]}
    parts = len(axes & pruned)
    title = f"{counted(len(axes) - parts, 'axis', 'axes')} cannot be pruned" + (f", {parts} more only in part" if parts else "")
    table = _table(title, *_REFUSAL, text=_REFUSAL[1:])
    lines: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for refusal in found["refusals"]:
        why = (refusal["reason"], refusal["text"])
        for axis in refusal["axes"]:
            name = f"{axis} (in part)" if axis in pruned else axis
            alone = () if shown is not None else (name, refusal["node"])
            lines.setdefault((*alone, *why), []).append((name, refusal["node"]))
    for key, places in list(lines.items())[:shown]:
        names, nodes = (list(dict.fromkeys(side)) for side in zip(*places, strict=True))
        table.add_row(_and_more(names), key[-2], _and_more(nodes), key[-1])
    console.print(table)
    _rest(console, len(lines), shown, "--all", "reason")
    remedies = dict.fromkeys((refusal["reason"], refusal["remedy"]) for refusal in found["refusals"] if refusal["remedy"])
    for reason, remedy in remedies:
        _say(console, f"{reason}: {remedy}")


def _and_more(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _rest(console: Console, count: int, shown: int | None, option: str, singular: str) -> None:
    if shown is not None and count > shown:
        _say(console, f"... and {counted(count - shown, f'more {singular}')}; {option} lists all")


def _change(old: int, new: int) -> str:
    return f"{_bytes(old)} -> {_bytes(new)} ({new / max(old, 1):.3f})"


def _repairs(console: Console, what: str, repairs: Sequence[Repaired]) -> None:
    before, after = (mean(getattr(done, which) for done in repairs) for which in ("before", "after"))
    layers = counted(len(repairs), "layer")
    _say(console, f"{what} {layers}: mean error of their outputs {before:.1%} -> {after:.1%} of its variance")


def _drift(console: Console, drift: Drift) -> None:
    _say(
        console,
        f"outputs against the original's, {counted(drift.samples, 'sample')} ({drift.source}): cosine {drift.cosine:.4f}, "
        f"relative error {drift.relative:.3f}, top-1 agreement {drift.agreement:.1%}",
    )


def sparse(report: SparseReport, output: str) -> None:
    """What `sparsify` did."""
    console = _console()
    table = _table(f"{report.model} -> {output}", "layer", "weights", "kept", "sparsity", "kept energy")
    for layer in report.layers:
        share = 1 - layer.kept / max(layer.size, 1)
        table.add_row(layer.weight, str(layer.size), str(layer.kept), f"{share:.3f}", f"{layer.energy:.3f}")
    console.print(table)
    layers, overall = counted(len(report.layers), "layer"), report.zeros / max(report.parameters, 1)
    shared = f", shared out by {report.allocation}" if report.allocation else ""
    _say(console, f"{report.pattern}, by {report.method}{shared}")
    obtained = f"{report.sparsity:.3f} in {layers}, {overall:.3f} of all weights"
    _say(console, f"requested {report.requested}, obtained a sparsity of {obtained}")
    if report.dense:
        _say(console, f"dense, because no other layer comes before or after: {', '.join(report.dense)}; --ends includes them")
    for name, why in islice(report.left.items(), _FEW):
        _say(console, f"dense: {name} {why}")
    _rest(console, len(report.left), _FEW, "--json", "matrix")
    if report.permuted:
        _say(console, f"channels changed places in {counted(len(report.permuted), 'group')}: proven to compute the same")
    if report.repairs:
        _repairs(console, "refit", report.repairs)
    _kernels(console, [layer.to_dict() for layer in report.kernels])
    if report.verification:
        _verified(console, dataclasses.asdict(report.verification), "sparse == original with the same weights")
    if report.drift:
        _drift(console, report.drift)
    sizes = zip(("file", "after gzip"), (report.size, report.gzip), strict=True)
    _say(console, ", ".join(f"{name} {_change(old, new)}" for name, (old, new) in sizes))
    _notes(console, report.notes)


def planned(document: dict[str, Any], output: str, obtained: Mapping[str, float]) -> None:
    """What `plan` decided."""
    console = _console()
    table = _table(f"plan -> {output}", "group", "positions", "keeps", "share")
    for group in document["groups"][:_SHOWN]:
        kept = len(group["keep"])
        table.add_row(group["id"], str(group["size"]), str(kept), f"{kept / group['size']:.2f}")
    console.print(table)
    _rest(console, len(document["groups"]), _SHOWN, "--json", "group")
    size, kept = sum(g["size"] for g in document["groups"]), sum(len(g["keep"]) for g in document["groups"])
    losing = sum(len(group["keep"]) < group["size"] for group in document["groups"])
    _say(console, f"{losing} of {counted(len(document['groups']), 'group')} lose positions; {kept} of {size} positions remain")
    _say(console, "obtained " + ", ".join(f"{metric}={fraction:.3f}" for metric, fraction in obtained.items()))


def applied(done: dict[str, Any], repairs: Sequence[Repaired] = ()) -> None:
    """What `apply` wrote."""
    verb = "masked" if done["masked"] else "pruned"
    console = _console()
    _say(console, f"{done['output']}: {counted(done['groups'], 'group')} {verb}, {_bytes(done['bytes'])}")
    _verified(console, done["verification"], "masked == original with zeros" if done["masked"] else "pruned == masked")
    if repairs:
        _repairs(console, "repaired", repairs)


def quantized(report: QuantReport, output: str) -> None:
    """What `quantize` did."""
    console = _console()
    kept = Counter((node["op"], node["why"]) for node in report.kept)
    table = _table(f"{report.model} -> {output}", "operator", "nodes", "computes in", "why", text=("computes in", "why"))
    for op, count in sorted(report.nodes.items()):
        table.add_row(op, str(count), "int8", "")
    for (op, why), count in sorted(kept.items()):
        table.add_row(op, str(count), "float", why)
    console.print(table)
    recipe = report.recipe
    scales = "one scale for each channel" if recipe["per_channel"] else "one scale for each weight"
    bits = "7 bits" if recipe["reduce_range"] == "yes" else "8 bits"
    _say(
        console,
        f"{counted(report.weights, 'weight')} in {bits}, {scales}; activations {recipe['activations']}, {recipe['method']}",
    )
    _say(console, _change(*report.size))
    before, after = (zeros / max(report.elements, 1) for zeros in report.zeros)
    _say(console, f"zeros: {before:.1%} of the weights before, {after:.1%} after; every zero stayed zero")
    if report.verification:
        _verified(console, dataclasses.asdict(report.verification), "prepared == original, before int8")
        _say(console, "int8 is an approximation of that, which is measured and not proven")
    if report.drift:
        _drift(console, report.drift)
    if report.score:
        _scored(console, report.score)
    _notes(console, report.notes)


def _scored(console: Console, score: QualityScore, more: str = "") -> None:
    found = f"{score.metric} on {counted(score.samples, 'sample')} ({score.source})"
    _say(console, f"{found}: {score.original:.4f} -> {score.pruned:.4f}{more}")
    _notes(console, [score.notice] if score.notice else [])


def stored(done: Mapping[str, Any], law: str) -> None:
    """What `encode` or `decode` wrote; ``law`` is what was proven of it."""
    console = _console()
    rows = [row for row in done["weights"] if row["encoding"] != "dense"]
    if rows:
        _weights(console, rows, f"{counted(len(rows), 'weight')} encoded", "--json")
    size, dense = done["bytes"], done["dense_bytes"] + done["rest_bytes"]
    bound = done["bound_bytes"] + done["rest_bytes"]
    _say(
        console,
        f"{done['output']}: {_bytes(size)}, {size / dense:.3f} of dense ({_bytes(dense)}); "
        f"{done['sparsity']:.1%} of {quantity(done['elements'])} elements are zero, entropy bound {bound / dense:.3f}",
    )
    _kernels(console, done["kernels"])
    _verified(console, done["verification"], law)
    for kind, sizes in done.get("compressed", {}).items():
        _say(console, f"{kind}: {_bytes(sizes['output'])}; of the dense file {_bytes(sizes['dense'])}")
    _notes(console, done["notes"])
    if "benchmark" in done:
        timings(done["benchmark"])


def _sparsities(console: Console, found: Mapping[str, Any], *, every: bool) -> None:
    """Weights with zeros."""
    rows = [row for row in found["weights"] if row["sparsity"] >= _SPARSE or row["encoding"] != "dense"]
    if rows:
        title = (
            f"{counted(len(rows), 'weight')} with zeros; {found['sparsity']:.1%} of all {quantity(found['elements'])} weights are"
        )
        _weights(console, rows, title, "--all", None if every else _SHOWN)
    _kernels(console, found["kernels"], "--all", None if every else _SHOWN)


def _kernels(console: Console, rows: Sequence[Mapping[str, Any]], option: str = "--json", shown: int | None = _SHOWN) -> None:
    """Layers with sparse kernels."""
    if not rows:
        return
    title = f"{counted(len(rows), 'layer')} with sparse kernels"
    table = _table(title, "weight", "shape", "kernel", "pattern", "density", "time", text=("shape", "kernel", "pattern"))
    for row in rows[:shown]:
        shape = "x".join(map(str, row["shape"]))
        time = "" if row["ratio"] is None else f"{row['ratio']:.2f} ×"
        table.add_row(row["weight"], shape, row["operator"], row["pattern"], f"{row['stored']:.1%}", time)
    console.print(table)
    _rest(console, len(rows), shown, option, "layer")


def _weights(console: Console, rows: Sequence[Mapping[str, Any]], title: str, option: str, shown: int | None = _SHOWN) -> None:
    table = _table(
        title, "weight", "shape", "type", "zeros", "pattern", "stored as", "bytes", text=("shape", "type", "pattern", "stored as")
    )
    for row in rows[:shown]:
        shape = "x".join(map(str, row["shape"]))
        table.add_row(
            row["name"], shape, row["dtype"], f"{row['sparsity']:.1%}", row["pattern"], row["encoding"], quantity(row["stored"])
        )
    console.print(table)
    _rest(console, len(rows), shown, option, "weight")
