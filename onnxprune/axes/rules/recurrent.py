"""Recurrent layers: the hidden width is one factor in four places."""

from __future__ import annotations

from onnxprune.axes.activations import Activation, activations
from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import Refused, axes, rule
from onnxprune.ir.node import NodeView

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@rule(*GATES)
def recurrent(node: NodeView) -> AxisRule | Refused:
    """Gates are the major digit of the stacked weights; a unit without weights stays zero if its activations let it."""
    gates = GATES[node.op]
    chosen = activations(node, node.shape(1)[0])
    if chosen is None:
        return Refused("the standard does not have its activations, or has another number of them")
    if not all(map(_stays_zero, chosen)):
        return Refused("its activations give a unit without weights a state that is not zero")
    by_batch = node.attr("layout", 0)
    state = "n r h" if by_batch else "r n h"
    inputs = ["n t i" if by_batch else "t n i", "r (k h) i", "r (k h) h", "r (e h)", "n", state, state, "r (p h)"]
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


def _stays_zero(chosen: list[Activation]) -> bool:
    """Tell whether a state of zero stays zero where every gate reads zero; clipping does not change zero.

    LSTM: C = f(0) C + f(0) g(0), H = f(0) h(C). GRU: H = (1 - f(0)) g(0) + f(0) H. RNN: H = f(0).
    """
    values = [activation.at_zero for activation in chosen]
    match values:
        case [f, g, h]:
            return f == 0 or g == h == 0
        case [f, g]:
            return f == 1 or g == 0
        case _:
            return values == [0]
