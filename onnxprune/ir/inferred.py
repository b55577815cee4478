"""What the shape inference of the standard finds out about a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import GraphProto, ModelProto

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["infer_shapes", "typed_values"]


def infer_shapes(proto: ModelProto, name: str = "<model>", *, sizes: bool = False) -> GraphProto:
    """The graph with all types and shapes that follow from it.

    Args:
        proto: a model without large constants.
        name: of the model, for the message.
        sizes: also follow the integers that are computed from shapes.

    Raises:
        ModelError: inference says that the graph contradicts the standard.
    """
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=sizes).graph
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{name}: is not a valid graph: {' '.join(str(error).split())}") from error


def typed_values(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Inputs, outputs and what is recorded of other values."""
    yield from graph.input
    yield from graph.value_info
    yield from graph.output
