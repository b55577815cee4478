"""Finds where a model is not continuous: choices that a rounding error can tip.

``TopK`` over nearly equal scores, a box that barely passes a threshold, a rounded coordinate: two models that agree to float
tolerance may choose differently there, and everything behind the choice differs. The verifier therefore compares what goes
*into* such choices. A branch that the inputs of a test do not take would not be seen: `branch_variants` takes them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.control_flow import Phi, walk
from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.model import Model
from onnxprune.ir.node import defined, every_node, is_followed, values_read
from onnxprune.ir.weights import FLOATS, Weight

__all__ = ["Frontier", "branch_variants", "dtypes", "frontier"]

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
    """The choices of a model that depend on constants named in ``changed``; its names are unique over its bodies.

    A choice in a body counts where all that it chooses by is made outside, where it can be looked at.
    """
    steps = [step for _, step in walk(model.graph, model.opset)]
    if not any(isinstance(step, NodeProto) and step.op_type in CHOICES for step in steps):
        return Frontier((), frozenset())
    types, outside = _types(model), {*model.weights, *defined(model.graph)}
    affected, behind = set(changed), set[str]()
    known = -1
    while known < len(affected) + len(behind):  # what a loop carries round reaches its start in the second pass
        known = len(affected) + len(behind)
        entering: dict[str, None] = {}
        for step in steps:
            read, made = _flow(step)
            if not affected.isdisjoint(read):
                affected.update(made)
            if not behind.isdisjoint(read):
                behind.update(made)
            if not isinstance(step, NodeProto) or not _chooses(step):
                continue
            by = [name for name in step.input if name in affected and name not in behind]
            tipped = [name for name in by if types.get(name) in FLOATS]
            if tipped and outside.issuperset(by):
                behind.update(made)
                entering.update(dict.fromkeys(tipped))
    return Frontier(tuple(entering), frozenset(behind))


def branch_variants(*models: Model) -> Iterator[tuple[Model, ...]]:
    """Models with every branch taken to one side, then to the other, and every loop run twice; none if nothing depends on inputs.

    Args:
        models: they have the same control flow.
    """
    if any(_undecided(model, node) for model in models for node in every_node(model.graph) if is_followed(node)):
        for side in (True, False):
            yield tuple(_decided(model, side=side) for model in models)


def _undecided(model: Model, node: NodeProto) -> bool:
    """Tell whether the inputs of a model decide which branch is taken, or how often a loop runs."""
    first, second = [*node.input[:2], "", ""][:2]
    return node.op_type != "Scan" and (first not in model.weights or (second != "" and second not in model.weights))


def _decided(model: Model, *, side: bool) -> Model:
    result = model.copy()
    condition, limit = (result.fresh_name(name) for name in ("condition", "limit"))
    result.weights[condition] = Weight(condition, None, np.array(side))
    result.weights[limit] = Weight(limit, None, np.array(2, np.int64))
    for node in every_node(result.graph):
        if is_followed(node) and node.op_type == "If":
            node.input[0] = condition
        elif is_followed(node) and node.op_type == "Loop":
            node.input[0] = limit
            node.input[1:2] = [""]
    return result


def _flow(step: NodeProto | Phi) -> tuple[set[str], set[str]]:
    """The values that a step reads, and those that it makes."""
    if isinstance(step, Phi):
        return {*(end.value for end in step.sources), *step.deciding}, {step.target.value}
    return set(values_read(step)), set(step.output)


def _chooses(node: NodeProto) -> bool:
    exact = node.op_type == "Cast" and any(a.name == "to" and a.i in FLOATS for a in node.attribute)
    return node.op_type in CHOICES and not exact


def _types(model: Model) -> dict[str, int]:
    """The element type of every value of the main graph that inference can type."""
    graph = infer_shapes(model.skeleton(), model.name)
    return {value.name: value.type.tensor_type.elem_type for value in typed_values(graph)}


def dtypes(model: Model) -> dict[str, np.dtype[Any]]:
    """The element type of every constant and of every value that inference can type."""
    kinds = _types(model) | {weight.name: weight.dtype for weight in model.weights.values()}
    return {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items() if kind}
