"""Where a model stops being continuous: choices that a rounding error can tip.

``TopK`` over nearly equal scores, a box that barely passes a threshold, a rounded coordinate: two models that agree to float
tolerance may choose differently there, and everything behind the choice differs. The verifier therefore compares what goes
*into* such choices.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.model import Model
from onnxprune.node import captured
from onnxprune.weights import FLOATS

__all__ = ["Frontier", "dtypes", "frontier"]

CHOICES = frozenset({
    "ArgMax", "ArgMin", "Bernoulli", "Cast", "Ceil", "Compress", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax",
    "Less", "LessOrEqual", "Mod", "Multinomial", "NonMaxSuppression", "NonZero", "Round", "Sign", "TopK", "Unique",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frontier:
    """Attributes:
    entering: floating-point values that choices are made by, in graph order.
    behind: values that depend on a choice.
    """

    entering: tuple[str, ...]
    behind: frozenset[str]


def frontier(model: Model, changed: Collection[str]) -> Frontier:
    """The choices of a model that depend on constants named in ``changed``."""
    if not any(node.op_type in CHOICES for node in model.graph.node):
        return Frontier((), frozenset())
    types = _types(model)
    affected, behind = set(changed), set[str]()
    entering: dict[str, None] = {}
    for node in model.graph.node:
        read = {*node.input, *captured(node)}
        if not affected.isdisjoint(read):
            affected.update(node.output)
        if not behind.isdisjoint(read):
            behind.update(node.output)
        if node.op_type not in CHOICES or (node.op_type == "Cast" and types.get(node.output[0]) in FLOATS):
            continue
        tipped = [name for name in node.input if name in affected and name not in behind and types.get(name) in FLOATS]
        if tipped:
            behind.update(node.output)
            entering.update(dict.fromkeys(tipped))
    return Frontier(tuple(entering), frozenset(behind))


def _types(model: Model) -> dict[str, int]:
    """The element type of every value that inference can type."""
    graph = onnx.shape_inference.infer_shapes(model.skeleton()).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def dtypes(model: Model) -> dict[str, np.dtype[Any]]:
    """The element type of every constant and of every value that inference can type."""
    kinds = _types(model) | {weight.name: weight.dtype for weight in model.weights.values()}
    return {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items() if kind}
