"""The arithmetic on sizes that exporters write into graphs: what follows from shapes alone is computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import captured, domain_of
from onnxprune.runtime.session import evaluate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from onnx import NodeProto

    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["SMALL", "size_arithmetic", "small_constants"]

SMALL = 4096
"""Elements up to which a constant is offered to rules and size arithmetic is computed."""

_UNSTABLE = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"})


def size_arithmetic(
    model: Model,
    nodes: Iterable[NodeProto],
    shapes: Mapping[str, Shape | None],
    known: Mapping[str, Array],
    doubted: Collection[str],
) -> dict[str, Array]:
    """Compute every small value that follows from known shapes alone.

    Args:
        model: for its operator sets.
        nodes: in topological order.
        shapes: of the values, as far as they are known.
        known: small values that are.
        doubted: values whose sizes are no constants.
    """
    leaves: dict[str, Array] = {}
    follows: set[str] = set()
    computable: list[NodeProto] = []
    for node in nodes:
        if domain_of(node) or node.op_type in _UNSTABLE or any(name in known for name in node.output):
            continue
        if node.op_type in {"Shape", "Size"}:
            shape = shapes.get(node.input[0])
            if shape is not None and node.input[0] not in doubted:
                leaves[node.output[0]] = _shape_value(node, shape)
                follows.add(node.output[0])
            continue
        names = [name for name in node.input if name]
        small = all(math.prod(shape) <= SMALL for name in node.output if (shape := shapes.get(name)) is not None)
        if names and small and not captured(node) and all(name in known or name in follows for name in names):
            computable.append(node)
            follows.update(name for name in node.output if name)
            leaves |= {name: known[name] for name in names if name in known}
    if not computable:
        return {name: value for name, value in leaves.items() if name in follows}
    computed = evaluate(model.proto, computable, leaves)
    small_values = {name: value for name, value in computed.items() if value.size <= SMALL}
    return small_values | {name: value for name, value in leaves.items() if name in follows}


def _shape_value(node: NodeProto, shape: Shape) -> Array:
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)


def small_constants(model: Model) -> dict[str, Array]:
    """The values of the constants that rules may look at."""
    return {w.name: w.array() for w in model.weights.values() if w.size <= SMALL and w.dtype != TensorProto.STRING}
