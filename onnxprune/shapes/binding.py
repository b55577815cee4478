"""Writes the sizes of a probe into a graph, so that inference sees numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorShapeProto, numpy_helper

from onnxprune.ir.node import captured, domain_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from onnx import ModelProto, NodeProto, ValueInfoProto

    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["DATA_DEPENDENT", "Known", "bind", "fill", "substitute"]

DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})
"""Operators whose outputs have sizes that depend on data."""

Known = dict[str, "Shape | None"]
"""Shapes by value; ``None`` where one stayed unknown."""


def fill(
    proto: ModelProto,
    open_nodes: Iterable[NodeProto],
    shapes: Known,
    incomplete: Mapping[str, ValueInfoProto],
    stand_in: int,
) -> bool:
    """Give sizes that depend on data a value; returns whether there were any."""
    filled = False
    for node in open_nodes:
        if domain_of(node) or node.op_type not in DATA_DEPENDENT:
            continue
        for name in node.output:
            value = incomplete.get(name)
            if value is None or shapes.get(name) is not None:
                continue
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = stand_in
            proto.graph.value_info.append(value)
            filled = True
    return filled


def bind(proto: ModelProto, inputs: Mapping[str, Shape]) -> Known:
    """Write the probe's sizes into the graph; drop recorded shapes, which spell the open ones.

    The shapes of outputs are returned where all sizes are numbers. Inference does not get them: it would not find contradictions.
    """
    names: dict[str, int] = {}
    for value in proto.graph.input:
        if value.name not in inputs:
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):  # the rank is open, too
            tensor.shape.dim.extend(TensorShapeProto.Dimension() for _ in inputs[value.name])
        for dim, size in zip(tensor.shape.dim, inputs[value.name], strict=True):
            if dim.dim_param:
                names[dim.dim_param] = size
            dim.dim_value = size
    custom = {name for node in proto.graph.node if domain_of(node) or captured(node) for name in node.output}
    recorded = [value for value in proto.graph.value_info if value.name in custom]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(recorded)
    for value in (*proto.graph.value_info, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_value = names[dim.dim_param]
            elif not dim.HasField("dim_value") or dim.dim_value < 0:
                dim.Clear()
    return _declared(proto, custom)


def _declared(proto: ModelProto, custom: Collection[str]) -> Known:
    """The shapes of outputs, which are taken out of the graph; those of ``custom`` operators stay."""
    declared: Known = {}
    for value in proto.graph.output:
        tensor = value.type.tensor_type
        if value.name not in custom and tensor.HasField("shape"):
            if all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                declared[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
            tensor.ClearField("shape")
    return declared


def substitute(proto: ModelProto, values: Mapping[str, Array]) -> None:
    """Put computed values in the place of the nodes that compute them, so that inference sees numbers."""
    present = {tensor.name for tensor in proto.graph.initializer}
    nodes: Iterable[NodeProto] = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if len(node.output) == 1 and node.output[0] in values and node.output[0] not in present:
            proto.graph.initializer.append(numpy_helper.from_array(values[node.output[0]], node.output[0]))
        else:
            proto.graph.node.append(node)
