"""What the shape inference of the standard finds out about a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import GraphProto, ModelProto

from onnxprune.errors import ModelError
from onnxprune.ir.sized import guarded, is_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["infer_shapes", "typed_values"]

_LONGEST = 1 << 20
"""Entries of a vector up to which integers are followed: inference takes each for a size, and holds 140 bytes of it per node."""


def infer_shapes(proto: ModelProto, name: str = "<model>", *, sizes: bool = False) -> GraphProto:
    """The graph with all types and shapes that follow from it; its nodes are not those of the model.

    Args:
        proto: a model without large constants.
        name: of the model, for the message.
        sizes: also follow the integers that are computed from shapes, unless a vector is too long for that.

    Raises:
        ModelError: inference says that the graph contradicts the standard.
    """
    safe = guarded(proto)
    try:
        graph = onnx.shape_inference.infer_shapes(safe).graph
        if sizes and not any(_is_long(value) for value in _all_values(graph)):
            graph = onnx.shape_inference.infer_shapes(safe, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{name}: is not a valid graph: {' '.join(str(error).split())}") from error
    if safe is not proto:
        known = [value for value in graph.value_info if not is_guard(value.name)]
        del graph.value_info[:]
        graph.value_info.extend(known)
    return graph


def _all_values(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Those of bodies, too."""
    yield from typed_values(graph)
    for body in (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")):
        yield from _all_values(body)


def _is_long(value: onnx.ValueInfoProto) -> bool:
    sizes = value.type.tensor_type.shape.dim
    return len(sizes) == 1 and sizes[0].dim_value > _LONGEST


def typed_values(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Inputs, outputs and what is recorded of other values."""
    yield from graph.input
    yield from graph.value_info
    yield from graph.output
