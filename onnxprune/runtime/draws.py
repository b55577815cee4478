"""Random numbers that a graph draws, the same in every run: two models that are compared must not differ by chance.

A noise of the VITS or diffusion kind is a function of where an element lies and of the name of the value, so that a model and
what was made of it draw alike, whatever ran before, and however many threads run.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir.node import STANDARD_DOMAINS, domain_of, every_body

__all__ = ["draws", "fix_draws"]

_NORMAL = frozenset({"RandomNormal", "RandomNormalLike"})
_UNIFORM = frozenset({"RandomUniform", "RandomUniformLike"})
_KINDS = _NORMAL | _UNIFORM | {"Bernoulli"}
_LEAST_OPSET, _ZERO_SIZES, _CAST_LIKE = 9, 14, 15
"""Operator sets that brought ``NonZero``, reshaping to sizes of zero, and casts to the type of another value."""
_STEP, _SPREAD = 12.9898, 43758.5453
"""Of the usual hash of graphics: the fraction of ``sin(12.9898 i) * 43758.5453`` looks evenly distributed over [0, 1)."""


def draws(proto: ModelProto) -> int:
    """The number of nodes of a model whose random numbers `fix_draws` computes."""
    opset = _opset(proto)
    return sum(_is_fixed(node, opset) for graph in (proto.graph, *every_body(proto.graph)) for node in graph.node)


def fix_draws(proto: ModelProto) -> None:
    """Let nodes that draw random numbers compute them instead, in place.

    What has no type of its own stays in operator sets before 15, and everything does before 9; so does ``Multinomial``.
    """
    opset = _opset(proto)
    for graph in (proto.graph, *every_body(proto.graph)):
        if any(_is_fixed(node, opset) for node in graph.node):
            nodes = [made for node in graph.node for made in (_computed(node, opset) if _is_fixed(node, opset) else [node])]
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)


def _opset(proto: ModelProto) -> int:
    return max((one.version for one in proto.opset_import if one.domain in STANDARD_DOMAINS), default=0)


def _is_fixed(node: NodeProto, opset: int) -> bool:
    if node.op_type not in _KINDS or domain_of(node) or opset < _LEAST_OPSET:
        return False
    return opset >= _CAST_LIKE or not node.input or any(one.name == "dtype" for one in node.attribute)


def _computed(node: NodeProto, opset: int) -> Iterator[NodeProto]:
    """Nodes that make the value of one that draws it."""
    out, attributes = node.output[0], {one.name: helper.get_attribute_value(one) for one in node.attribute}
    phase = zlib.crc32(out.encode()) % 1000

    def named(part: str) -> str:
        return f"{out}__draw_{part}"

    def constant(part: str, value: Any) -> NodeProto:
        return helper.make_node("Constant", [], [named(part)], value=numpy_helper.from_array(np.asarray(value)))

    def op(kind: str, parts: str, made: str, **given: Any) -> NodeProto:
        return helper.make_node(kind, [named(part) for part in parts.split()], [named(made)], **given)

    def uniform(made: str, offset: float) -> Iterator[NodeProto]:
        yield constant(f"{made}_offset", offset)
        yield op("Add", f"turned {made}_offset", f"{made}_angle")
        yield op("Sin", f"{made}_angle", f"{made}_sine")
        yield op("Mul", f"{made}_sine spread", f"{made}_wide")
        yield op("Floor", f"{made}_wide", f"{made}_whole")
        yield op("Sub", f"{made}_wide {made}_whole", made)

    # The number of each element, in the shape of the value.
    if node.input:
        yield helper.make_node("Shape", [node.input[0]], [named("shape")])
    else:
        yield constant("shape", np.array(attributes["shape"], np.int64))
    yield op("ReduceProd", "shape", "count", keepdims=1)
    yield op("ConstantOfShape", "count", "ones", value=helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    yield op("NonZero", "ones", "numbers")
    yield op("Reshape", "numbers shape", "placed", **({"allowzero": 1} if opset >= _ZERO_SIZES else {}))
    yield op("Cast", "placed", "number", to=TensorProto.DOUBLE)
    yield from (constant("step", _STEP), constant("spread", _SPREAD))
    yield op("Mul", "number step", "turned")
    yield from uniform("even", float(phase))
    made = "even"
    if node.op_type in _NORMAL:  # Box and Muller
        yield from uniform("other", phase + 500.0)
        yield from (constant("least", 1e-12), constant("minus", -2.0), constant("circle", 2 * math.pi))
        yield from (op("Add", "even least", "positive"), op("Log", "positive", "log"), op("Mul", "log minus", "square"))
        yield from (op("Sqrt", "square", "radius"), op("Mul", "other circle", "arc"), op("Cos", "arc", "cosine"))
        yield op("Mul", "radius cosine", "standard")
        made = "standard"
    if node.op_type == "Bernoulli":
        yield helper.make_node("Cast", [node.input[0]], [named("chance")], to=TensorProto.DOUBLE)
        yield op("Less", "even chance", "drawn")
    else:
        low, high = attributes.get("low", 0.0), attributes.get("high", 1.0)
        scale, start = (attributes.get("scale", 1.0), attributes.get("mean", 0.0)) if made != "even" else (high - low, low)
        yield from (constant("scale", float(scale)), constant("start", float(start)))
        yield from (op("Mul", f"{made} scale", "scaled"), op("Add", "scaled start", "drawn"))
    dtype = attributes.get("dtype", 0 if node.input else TensorProto.FLOAT)
    if dtype:
        yield helper.make_node("Cast", [named("drawn")], [out], to=dtype)
    else:
        yield helper.make_node("CastLike", [named("drawn"), node.input[0]], [out])
