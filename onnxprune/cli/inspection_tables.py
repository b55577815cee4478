"""What `inspect` found, as tables, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.cli.console import bar, console, counted, in_bytes, quantity, say, table
from onnxprune.cli.tables import kernels, rest, weights

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["inspection"]

_SHOWN = 40
"""Groups or reasons listed before the rest is counted."""
_LARGEST, _BAR = 10, 8
"""Layers whose shares are shown, and columns of the longest bar."""
_REFUSAL = ("axis", "reason", "node", "why")
_SPARSE = 0.1
"""Zeros from which `inspect` lists a weight: rounding leaves some in any."""


def inspection(found: dict[str, Any], *, layers: bool, every: bool = False) -> None:
    """What `inspect` found; axes that cannot be pruned are listed by reason, or with ``every`` one by one."""
    out = console()
    shown = None if every else _SHOWN
    cost = found["cost"]
    say(
        out,
        f"{found['model']}: opset {found['opset']}, {quantity(cost['macs'])} MACs, {quantity(cost['params'])} parameters, "
        f"{in_bytes(cost['size'])}",
    )
    _interface(out, found)
    title = f"{counted(len(found['groups']), 'group')} can be pruned"
    listed = table(title, "group", "kind", "positions", "constants", "exact", "read by", text=("kind", "exact", "read by"))
    for group in found["groups"][:shown]:
        ops = Counter(member["op"] for member in group["members"])
        readers = ", ".join(f"{op} {count}" if count > 1 else op for op, count in ops.most_common(4))
        exact, members = "yes" if group["exact"] else "no", str(len(group["members"]))
        listed.add_row(group["id"], group["kind"], str(group["size"]), members, exact, readers)
    if found["groups"]:
        out.print(listed)
    else:
        say(out, title)
    rest(out, len(found["groups"]), shown, "--all", "group")
    if found["refusals"]:
        _refusals(out, found, shown)
    _shares(out, found, every=layers or every)
    if layers:
        title = f"{counted(len(found['layers']), 'layer')} with weights or MACs"
        listed = table(title, "node", "op", "axes", text=("op", "axes"))
        for layer in found["layers"]:
            listed.add_row(layer["node"], layer["op"], layer["axes"])
        out.print(listed)
    if "sparsity" in found:
        _sparsities(out, found["sparsity"], every=every)
    if found.get("snippet"):
        say(out, "samples (--calib calib.npz) are made like this:")
        for line in found["snippet"]:
            out.print(f"    {line}", soft_wrap=True)


def _interface(out: Console, found: Mapping[str, Any]) -> None:
    """Who made the file, and what goes in and comes out."""
    if found.get("producer"):
        say(out, f"made by {found['producer']}, format version {found['ir_version']}")
    for side in ("inputs", "outputs"):
        for value in found.get(side, ()):
            shape = "any shape" if value["shape"] is None else f"[{', '.join(map(str, value['shape']))}]"
            say(out, f"{side[:-1]} {value['name']}: {value['type']} {shape}")


def _shares(out: Console, found: Mapping[str, Any], *, every: bool) -> None:
    """Where the MACs and the parameters are: the layers with most of them, with bars."""
    layers = found["layers"]
    all_macs, all_params = (max(sum(layer[key] for layer in layers), 1) for key in ("macs", "params"))
    ranked = layers if every else sorted(layers, key=lambda one: -max(one["macs"] / all_macs, one["params"] / all_params))
    if not layers:
        return
    listed = table("where the MACs and the parameters are", "node", "MACs", "", "parameters", "")
    for column in (2, 4):
        listed.columns[column].justify, listed.columns[column].no_wrap = "left", True
    for layer in ranked if every else ranked[:_LARGEST]:
        shares = layer["macs"] / all_macs, layer["params"] / all_params
        bars = [f"{bar(share, out, _BAR)} {share:.0%}" for share in shares]
        listed.add_row(layer["node"], quantity(layer["macs"]), bars[0], quantity(layer["params"]), bars[1])
    out.print(listed)
    rest(out, len(layers), None if every else _LARGEST, "--layers", "layer")


def _refusals(out: Console, found: Mapping[str, Any], shown: int | None) -> None:
    """Axes with the reason why they stay: one line for each reason, or where all are shown for each axis."""
    pruned = {f"{member['value']}:{member['axis']}" for group in found["groups"] for member in group["members"]}
    axes = {axis for refusal in found["refusals"] for axis in refusal["axes"]}
    parts = len(axes & pruned)
    title = f"{counted(len(axes) - parts, 'axis', 'axes')} cannot be pruned" + (f", {parts} more only in part" if parts else "")
    listed = table(title, *_REFUSAL, text=_REFUSAL[1:])
    lines: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for refusal in found["refusals"]:
        why = (refusal["reason"], refusal["text"])
        for axis in refusal["axes"]:
            name = f"{axis} (in part)" if axis in pruned else axis
            alone = () if shown is not None else (name, refusal["node"])
            lines.setdefault((*alone, *why), []).append((name, refusal["node"]))
    for key, places in list(lines.items())[:shown]:
        names, nodes = (list(dict.fromkeys(side)) for side in zip(*places, strict=True))
        listed.add_row(_and_more(names), key[-2], _and_more(nodes), key[-1])
    out.print(listed)
    rest(out, len(lines), shown, "--all", "reason")
    remedies = dict.fromkeys((refusal["reason"], refusal["remedy"]) for refusal in found["refusals"] if refusal["remedy"])
    for reason, remedy in remedies:
        say(out, f"{reason}: {remedy}")


def _and_more(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _sparsities(out: Console, found: Mapping[str, Any], *, every: bool) -> None:
    """Weights with zeros."""
    rows = [row for row in found["weights"] if row["sparsity"] >= _SPARSE or row["encoding"] != "dense"]
    if rows:
        title = (
            f"{counted(len(rows), 'weight')} with zeros; {found['sparsity']:.1%} of all {quantity(found['elements'])} weights are"
        )
        weights(out, rows, title, None if every else _SHOWN)
    kernels(out, found["kernels"], every=every)
