"""Reductions: sums contract, statistics mix, positions are fixed."""

from __future__ import annotations

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import COMPUTED, NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView

SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare")
"""A zero adds nothing: removing is exact wherever the removed positions are zero."""
STATISTICS = ("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


@rule(*SUMS, *STATISTICS)
def reduction(node: NodeView) -> AxisRule | Refused:
    rank = len(node.shape())
    over = node.ints("axes", 1)
    if over is None and node.has(1):
        return Refused("the axes to reduce are computed in the graph", remedy=COMPUTED)
    if not over:
        over = [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))
    reduced = {axis % rank for axis in over} if rank else set()
    names = [f"a{i}" for i in range(rank)]
    kept = [name if i not in reduced else "1" for i, name in enumerate(names)]
    if not node.attr("keepdims", 1):
        kept = [name for name in kept if name != "1"]
    mix = "" if node.op in SUMS else " ".join(names[i] for i in sorted(reduced))
    logarithm = node.op.startswith("ReduceLog")
    poles = (0,) if node.op == "ReduceLogSum" else ()
    return axes(f"{' '.join(names)} -> {' '.join(kept)}", mix=mix, zero=((0,), *NEVER) if logarithm else ((0,),), poles=poles)


@rule("ArgMax", "ArgMin")
def arg_reduction(node: NodeView) -> AxisRule:
    rank, axis = len(node.shape()), node.axis(0)
    names = ["_" if i == axis else f"a{i}" for i in range(rank)]
    kept = [name if i != axis else "1" for i, name in enumerate(names) if i != axis or node.attr("keepdims", 1)]
    return axes(f"{' '.join(names)} -> {' '.join(kept)}", zero=NEVER)


@rule("CumProd", "CumSum", "TopK")
def ordered(node: NodeView) -> AxisRule | Refused:
    """The axis has an order; the others pass."""
    if node.op == "TopK":
        axis = node.axis(-1)
    else:
        given = node.const(1)
        if given is None:
            return Refused("its axis is computed in the graph", remedy=COMPUTED)
        axis = int(given.reshape(-1)[0]) % len(node.shape())
    text = " ".join("_" if i == axis else f"a{i}" for i in range(len(node.shape())))
    return axes(f"{text} -> {', '.join([text] * len(node.outputs))}", zero=NEVER if node.op == "TopK" else None)
