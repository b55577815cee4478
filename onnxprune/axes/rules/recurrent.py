"""Recurrent layers: the hidden width is one factor in four places."""

from __future__ import annotations

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import Refused, axes, rule
from onnxprune.ir.node import NodeView

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULT_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@rule(*GATES)
def recurrent(node: NodeView) -> AxisRule | Refused:
    """Gates are the major digit of the stacked weights; with default activations a unit without weights stays zero."""
    gates, default = GATES[node.op], DEFAULT_ACTIVATIONS[node.op]
    directions = node.shape(1)[0]
    chosen = [name if isinstance(name, str) else name.decode() for name in node.attr("activations", default * directions)]
    if chosen != default * directions:
        return Refused("its activations are not the default ones, and may not map zero to zero")
    by_batch = node.attr("layout", 0)
    state = "n r h" if by_batch else "r n h"
    inputs = ["n t i" if by_batch else "t n i", "r (k h) i", "r (k h) h", "r (e h)", "_", state, state, "r (p h)"]
    outputs = ["n t r h" if by_batch else "t r n h", state, state]
    count = len(outputs) if node.op == "LSTM" else 2
    return axes(
        f"{', '.join(inputs)} -> {', '.join(outputs[:count])}",
        sizes={"k": gates, "e": 2 * gates, "p": 3},
        fixed="t r k e p",
        attrs={"hidden_size": "h"},
        zero=((1,), (2,), (3,), (5,), (6,)),
        macs="t n r k h i + t n r k h h",
    )
