"""Copies of models in another floating-point type.

ONNX Runtime has no CPU kernels for much of bfloat16 and for some of float64, and rounding in half precision hides errors. The
law is about what a graph computes, not about how it is rounded, so it can be checked on copies of both models in float32. How
they compute in float64 is up to `onnxprune.verify.float64`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of, every_body
from onnxprune.ir.weights import FLOATS, Weight

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["as_float32", "differing_weights", "feeds_as_float32", "float_types", "retyped", "with_fitted_weights"]

_TYPE_ATTRIBUTES = frozenset({"dtype", "output_datatype", "output_dtype", "precision", "softmax_precision", "stash_type", "to"})
"""Attributes whose integer is a ``TensorProto.DataType``."""

_IMPLIED = {
    "ConstantOfShape": helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float32))),
    **dict.fromkeys(("RandomNormal", "RandomUniform"), helper.make_attribute("dtype", TensorProto.FLOAT)),
    **dict.fromkeys(
        ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
        helper.make_attribute("output_datatype", TensorProto.FLOAT),
    ),
}
"""The attribute that an operator implies where it is absent; it stands for float32."""

TypeField = tuple[Any, str]
"""A protobuf message, and its field that spells an element type."""


def float_types(model: Model) -> frozenset[str]:
    """The floating-point types that anything in a model has: of ``float64``, ``float32``, ``float16``, ``bfloat16``."""
    found = {weight.dtype for weight in model.weights.values()}
    found.update(getattr(message, name) for message, name in _type_fields(model.proto))
    return frozenset(helper.tensor_dtype_to_np_dtype(dtype).name for dtype in FLOATS & found)


def as_float32(model: Model) -> Model:
    """A copy in which every floating-point type is float32; see `retyped`."""
    return retyped(model, TensorProto.FLOAT)


def retyped(model: Model, to: int) -> Model:
    """A copy with one floating-point type, ``FLOAT`` or ``DOUBLE``: of inputs, outputs, weights, casts, in bodies, too.

    What a float64 weight has beyond float32's range becomes the largest float32. No weight is read before it is needed.
    """
    change = _narrow if to == TensorProto.FLOAT else _widen
    copy = model.copy()
    _spell_out(copy.proto)
    for message, name in list(_type_fields(copy.proto)):
        if getattr(message, name) not in FLOATS:
            continue
        if isinstance(message, TensorProto):
            message.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(message)), message.name))
        else:
            setattr(message, name, to)
    for name, weight in model.weights.items():
        if weight.dtype in FLOATS - {to}:
            copy.weights[name] = weight.derived(weight.shape, change, to)
    return copy


def feeds_as_float32(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a model as its copy in float32 takes them."""
    return {name: _narrow(value) if _is_float(value) else value for name, value in feeds.items()}


def _is_float(value: Any) -> bool:
    return str(getattr(value, "dtype", "")) in {"bfloat16", "float16", "float64"}


def _narrow(array: Array) -> Array:
    """The values as float32; infinities stay, finite values stay finite."""
    largest = np.finfo(np.float32).max
    if array.dtype == np.float64:
        array = np.where(np.isinf(array), array, np.clip(array, -largest, largest))
    return array.astype(np.float32)


def _widen(array: Array) -> Array:
    return array.astype(np.float64)


def _spell_out(proto: ModelProto) -> None:
    """Write down the types that nodes imply, so that they can be changed."""
    bodies = (proto.graph, *every_body(proto.graph), *proto.functions)
    for node in (node for body in bodies for node in body.node):
        implied = _IMPLIED.get(node.op_type)
        if implied and domain_of(node) == "" and all(attribute.name != implied.name for attribute in node.attribute):
            node.attribute.append(implied)
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in {"value_float", "value_floats"}:
                array = np.array(helper.get_attribute_value(attribute), np.float32)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))


def _type_fields(proto: ModelProto) -> Iterator[TypeField]:
    yield from _in_graph(proto.graph)
    for function in proto.functions:
        for value in function.value_info:
            yield from _in_type(value.type)
        yield from _in_nodes(function.node)


def _in_graph(graph: GraphProto) -> Iterator[TypeField]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from _in_type(value.type)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        yield tensor, "data_type"
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[TypeField]:
    for node in nodes:
        for attribute in node.attribute:
            match attribute.type:
                case AttributeProto.INT:
                    if attribute.name in _TYPE_ATTRIBUTES:
                        yield attribute, "i"
                case AttributeProto.TENSOR:
                    yield attribute.t, "data_type"
                case AttributeProto.SPARSE_TENSOR:
                    yield attribute.sparse_tensor.values, "data_type"
                case AttributeProto.TYPE_PROTO:
                    yield from _in_type(attribute.tp)
                case AttributeProto.GRAPH | AttributeProto.GRAPHS:
                    for graph in (attribute.g, *attribute.graphs):
                        yield from _in_graph(graph)


def _in_type(kind: TypeProto) -> Iterator[TypeField]:
    match kind.WhichOneof("value"):
        case "tensor_type" | "sparse_tensor_type" as name:
            yield getattr(kind, name), "elem_type"
        case "sequence_type" | "optional_type" as name:
            yield from _in_type(getattr(kind, name).elem_type)
        case "map_type":
            yield from _in_type(kind.map_type.value_type)


def differing_weights(model: Model, other: Model) -> set[str]:
    """The constants of both that are not the very same."""
    return {name for name, weight in model.weights.items() if name in other.weights and other.weights[name] is not weight}


def with_fitted_weights(model: Model, fitted: Model, names: Collection[str]) -> Model:
    """A model with some constants of a float32 copy of it, in the types they had; and with biases that the copy's nodes got."""
    result = model.copy()
    for node, grown in zip(result.graph.node, fitted.graph.node, strict=True):
        for name in grown.input[len(node.input) :]:
            dtype = model.weights[node.input[1]].array().dtype
            result.weights[name] = Weight(name, None, fitted.weights[name].array().astype(dtype))
            node.input.append(name)
    for name in names:
        like = model.weights[name].array()
        result.weights[name] = Weight(name, None, fitted.weights[name].array().astype(like.dtype))
    return result
