"""Inputs that are positions in a table, as ids of words are, and how many rows it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ir.node import domain_of, every_node, origin

if TYPE_CHECKING:
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
        table, ids = origin(node.input[0], makers, _SAME_ROWS), origin(node.input[1], makers, _SAME_VALUES)
        if table in model.weights and ids in inputs:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            rows = max(model.weights[table].shape[axis], 1)
            found[ids] = min(rows, found.get(ids, rows))
    return found
