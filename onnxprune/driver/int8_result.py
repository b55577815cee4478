"""What has become of the nodes and weights of a model that was quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto

from onnxprune.driver.ort_quantizer import BYTES
from onnxprune.errors import VerificationError
from onnxprune.ir.model import DEFAULTS
from onnxprune.ir.node import QDQ, domain_of, every_graph, every_node
from onnxprune.ir.weights import FLOATS
from onnxprune.runtime.int8_operators import operators

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = [
    "WeightZeros",
    "computing",
    "idle_in_int8",
    "kept_in_bodies",
    "kept_in_float",
    "most_frequent_reason",
    "tidy",
    "weight_zeros",
    "with_quantizers",
]

_SIZES = frozenset({"Shape", "Size"})
"""Read floats, and compute nothing of them."""
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose products int8 makes cheaper, also those of two activations."""
_MOVING = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze", "Tile", "Where"),
    }
)
"""Operators that compute nothing."""
_IDLE = "no layer around it computes in int8"
_READS_FLOATS = "what it reads is not in int8"
_IN_BODY = "ONNX Runtime's quantizer does not look into branches and loops"


@dataclass(frozen=True, slots=True)
class WeightZeros:
    """A quantised weight: how many elements it has, and how many of them are zero before and after."""

    elements: int
    before: int
    after: int


def _types(model: Model) -> dict[str, int]:
    """The element type of each value, as far as the graph records it."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {n: w.dtype for n, w in model.weights.items()}


def computing(model: Model) -> Iterator[NodeProto]:
    """Nodes of the main graph that compute on floats, other than those that quantise."""
    types = _types(model)
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in model.graph.node:
        floats = any(name in made or types.get(name) in FLOATS for name in node.input)
        if floats and node.op_type not in QDQ | _SIZES:
            yield node


def kept_in_float(model: Model, excluded: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Nodes that compute in floating point: name, operator, and why."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    types = _types(model)
    known = operators()
    for node in computing(model):
        floats = [name for name in node.input if name and (name in dequantized or types.get(name, 1) in FLOATS)]
        if node.name in excluded:
            why = excluded[node.name]
        elif node.op_type not in known or domain_of(node):
            why = "ONNX Runtime has no int8 form of it"
        elif all(name in dequantized for name in floats):
            continue
        else:
            why = _READS_FLOATS
        yield {"node": node.name, "op": node.op_type, "why": why}


def idle_in_int8(model: Model, excluded: Mapping[str, str]) -> dict[str, str]:
    """Nodes in a stretch of int8 that gains nothing, by name, and why they had better stay as they are.

    A stretch is what values lead through without floats in between. One of ``Slice`` and ``Concat`` alone gains nothing: values
    are rounded, converted forth and back, and the file holds two nodes, a scale and a zero point for each of them. One that
    computes without a layer also keeps values in the range of the samples, as behind a logarithm; it gains nothing where the
    model has no layer in int8 at all.
    """
    floats = {node["node"] for node in kept_in_float(model, excluded)}
    same = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in QDQ}
    converted = same.keys() | set(same.values())
    touched = (node for node in computing(model) if not converted.isdisjoint([*node.input, *node.output]))
    known = operators()
    nodes = [node for node in touched if node.name not in excluded and node.op_type in known and not domain_of(node)]
    makers = {_followed(name, same): node.name for node in nodes for name in node.output if name in converted}
    stretches = {node.name: {node.name} for node in nodes}
    layers, computed = set(), set()
    for node in nodes:
        sources = [_followed(name, same) for name in node.input if name in converted]
        matrix = any(name in model.weights and model.weights[name].is_matrix for name in sources)
        if node.name not in floats and (node.op_type in _LAYERS or matrix):
            layers.add(node.name)
        elif node.op_type not in _MOVING:
            computed.add(node.name)
        for other in (makers[name] for name in sources if name in makers):
            if stretches[other] is not stretches[node.name]:
                stretches[other] |= stretches[node.name]
                stretches |= dict.fromkeys(stretches[node.name], stretches[other])
    busy = layers | computed if layers else layers
    return {name: _IDLE for name, stretch in stretches.items() if busy.isdisjoint(stretch)}


def _followed(name: str, same: Mapping[str, str]) -> str:
    """The value, or constant, that a value is the same as but for its type."""
    while name in same:
        name = same[name]
    return name


def kept_in_bodies(model: Model) -> Iterator[dict[str, str]]:
    """Layers in branches and loops, which the quantizer does not look into: name, operator, and why."""
    constants = {name for name, weight in model.weights.items() if weight.dtype in FLOATS}
    _, *bodies = every_graph(model.graph)
    for body in bodies:
        constants.update(tensor.name for tensor in body.initializer if tensor.data_type in FLOATS)
        constants.update(node.output[0] for node in body.node if node.op_type == "Constant" and _holds_floats(node))
    known = operators()
    for node in (node for body in bodies for node in body.node):
        if node.op_type in known and constants.intersection(node.input[1:]):
            yield {"node": node.name or node.output[0], "op": node.op_type, "why": _IN_BODY}


def _holds_floats(constant: NodeProto) -> bool:
    return any(attribute.name == "value" and attribute.t.data_type in FLOATS for attribute in constant.attribute)


def most_frequent_reason(model: Model, kept: Sequence[Mapping[str, str]]) -> str:
    """The most frequent reason; of nodes that stay because of others only where there are none else."""
    every = Counter(node["why"] for node in kept)
    reasons = Counter({why: count for why, count in every.items() if why not in {_IDLE, _READS_FLOATS}}).most_common(
        1
    ) or every.most_common(1)
    if reasons:
        return reasons[0][0]
    return "no operator reads a weight in floating point" if any(computing(model)) else "it computes on no floats"


def weight_zeros(prepared: Model, result: Model) -> dict[str, WeightZeros]:
    """The zeros of each quantised weight, by its name.

    Raises:
        VerificationError: a zero would not stay one.
    """
    found = {}
    for node in result.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in result.weights:
            continue
        weight = result.weights[node.input[0]]
        name = weight.name.removesuffix("_quantized")
        if weight.dtype not in BYTES or name not in prepared.weights:
            continue
        point, along = result.weights[node.input[2]].array(), [1] * len(weight.shape)
        if point.size > 1:
            along[_axis(node)] = -1
        zero = weight.array() == (point.reshape(along) if along else point)
        was = prepared.weights[name].array() == 0
        if np.any(was & ~zero):
            raise VerificationError(f"{name}: a zero of it is not zero in int8: leave it out with --exclude {name!r}")
        found[name] = WeightZeros(weight.size, int(was.sum()), int(zero.sum()))
    return found


def with_quantizers(original: Model, result: Model) -> Model:
    """The original with the nodes that make the quantised constants of the result, so that what nodes make may stay made.

    A mask that nodes make of its sizes would be stored in the result: ONNX Runtime folds it before it quantises.
    """
    source = original.copy()
    made = {name for node in every_node(original.graph) for name in node.output}
    for node in result.graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3 or not result.weights.keys() >= set(node.input):
            continue
        quantized, scale, point = node.input
        name = quantized.removesuffix("_quantized")
        if name not in made or quantized in source.weights:
            continue
        source.weights |= {constant: result.weights[constant] for constant in (scale, point)}
        step = NodeProto(op_type="QuantizeLinear", name=f"{name}_quantize", input=[name, scale, point], output=[quantized])
        step.attribute.extend(node.attribute)
        source.graph.node.append(step)
    return source


def tidy(model: Model, original: Model) -> None:
    """The name, interface and description of the original; nothing that only the quantizer's own steps read."""
    proto, first = model.proto, original.proto
    model.name, model.sizes = original.name, original.sizes
    if first.ir_version < DEFAULTS:  # the quantizer got a newer one
        proto.ir_version = first.ir_version
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(proto, field, getattr(first, field))
    for field, old in (("metadata_props", first.metadata_props), ("functions", first.functions)):
        current = getattr(proto, field)
        del current[:]
        current.extend(old)
    recorded = {value.name for value in first.graph.value_info}
    kept = [value for value in proto.graph.value_info if value.name in recorded]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for side in ("input", "output"):
        current = getattr(proto.graph, side)
        del current[:]
        current.extend(getattr(original.graph, side))
    proto.graph.name = first.graph.name
    used = {domain_of(node) for node in every_node(model.graph)}
    opsets = [one for one in proto.opset_import if one.domain in {"", "ai.onnx"} or one.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)


def _axis(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)
