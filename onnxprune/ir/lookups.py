"""Inputs that are positions in a table, as ids of words are, and how many rows it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ir.node import domain_of, every_node

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model

__all__ = ["rows_looked_up"]

_SAME_VALUES = frozenset(
    {
        *("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape"),
        *("Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators that output values of their first input, and no others."""
_SAME_ROWS = frozenset({"Cast", "DequantizeLinear", "Identity"})
"""Operators that leave a table its rows."""


def rows_looked_up(model: Model) -> dict[str, int]:
    """For each input of a graph whose values look up rows of a constant, how many rows that has: of several, the fewest.

    Ids may be cast and moved before, ``Gather(table, Cast(Slice(ids)))``, and the table may be dequantised.
    """
    makers = {name: node for node in every_node(model.graph) for name in node.output}
    inputs = {value.name for value in model.inputs}
    found: dict[str, int] = {}
    for node in every_node(model.graph):
        if node.op_type != "Gather" or domain_of(node):
            continue
        table, ids = _origin(node.input[0], _SAME_ROWS, makers), _origin(node.input[1], _SAME_VALUES, makers)
        if table in model.weights and ids in inputs:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            rows = max(model.weights[table].shape[axis], 1)
            found[ids] = min(rows, found.get(ids, rows))
    return found


def _origin(name: str, operators: frozenset[str], makers: dict[str, NodeProto]) -> str:
    """The value that another one comes from by these operators alone."""
    while name in makers and makers[name].op_type in operators and not domain_of(makers[name]):
        name = makers[name].input[0]
    return name
