"""Concrete shapes for every value of a graph, and which of their sizes are dynamic.

Exporters leave batch, sequence and image sizes open and write arithmetic on them into the graph. A *probe* gives every open
size a definite value, infers all shapes without touching a weight, and computes the integer arithmetic that follows from
them. Two probes with different values tell dynamic sizes from static ones. Only where inference has no answer (custom
operators, data-dependent sizes) the model itself is run once per probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from onnxprune.model import Array, Model, captured, domain_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnx import ModelProto, NodeProto, ValueInfoProto

    from onnxprune.equation import Shape

__all__ = ["Shapes", "bindings", "probe"]

SMALL = 4096
"""Elements up to which a constant is offered to rules and size arithmetic is computed."""

_ROUNDS = 8
_UNSTABLE = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"})


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the probes found.

    Attributes:
        shapes: the shape of each value in the first probe; ``None`` where it stayed unknown.
        dynamic: for values with a dynamic size, which of their axes have one.
        values: small constants and computed integers, in the first probe.
        moving: for computed values that differ between the probes, their value in the second one.
        batch: the size that the first probe gave to a dynamic batch axis; 1 where the batch is static.
    """

    shapes: Mapping[str, Shape | None]
    dynamic: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    moving: Mapping[str, Array] = field(default_factory=dict)
    batch: int = 1


def bindings(inputs: Sequence[ValueInfoProto]) -> list[dict[str, Shape]]:
    """Definite shapes for the graph inputs: one probe, and a second one if any size is open.

    A batch becomes 2 and 3, image sizes 64 and 96 pixels, other sizes 16, 24, 32, ... and twice as much in the second probe;
    sizes with one name stay equal.
    """
    probes: list[dict[str, Shape]] = []
    for second in (False, True):
        named: dict[str, int] = {}
        shapes: dict[str, Shape] = {}
        for value in inputs:
            dims = value.type.tensor_type.shape.dim
            shape = []
            for axis, dim in enumerate(dims):
                if dim.HasField("dim_value"):
                    shape.append(dim.dim_value)
                    continue
                name = dim.dim_param or f"{value.name}.{axis}"
                if name not in named:
                    named[name] = _open_size(axis, len(dims), len(named), second=second)
                shape.append(named[name])
            shapes[value.name] = tuple(shape)
        probes.append(shapes)
        if not named:
            break
    return probes


def _open_size(axis: int, rank: int, count: int, *, second: bool) -> int:
    if axis == 0:
        return 3 if second else 2
    if rank >= 4 and axis >= 2:
        return 96 if second else 64
    return (16 + 8 * count) * (2 if second else 1)


def probe(model: Model) -> Shapes:
    """Shapes of every value of ``model``; no weight is read unless the model has to be run."""
    constants = small_constants(model)
    found = [_probe_once(model, shapes, constants) for shapes in bindings(model.inputs)]
    shapes, values = found[0]
    dynamic, moving = {}, {}
    if len(found) > 1:
        others, other_values = found[1]
        for name, shape in shapes.items():
            other = others.get(name)
            if shape is None or other is None or len(shape) != len(other):
                shapes[name] = None
            elif shape != other:
                dynamic[name] = tuple(a != b for a, b in zip(shape, other, strict=True))
        for name in values.keys() - constants.keys():
            second = other_values.get(name)
            if second is None or not np.array_equal(values[name], second):
                moving[name] = second if second is not None else values[name]
    batch = next((shapes[v.name][0] for v in model.inputs if dynamic.get(v.name, (False,))[0]), 1)  # type: ignore[index]
    return Shapes(shapes, dynamic, values, moving, batch)


def small_constants(model: Model) -> dict[str, Array]:
    """The values of the constants that rules may look at."""
    return {w.name: w.array() for w in model.weights.values() if w.size <= SMALL and w.dtype != TensorProto.STRING}


def _probe_once(
    model: Model, inputs: Mapping[str, Shape], constants: Mapping[str, Array]
) -> tuple[dict[str, Shape | None], dict[str, Array]]:
    proto = model.skeleton()
    _bind(proto, model, inputs)
    values = dict(constants)
    for _ in range(_ROUNDS):
        shapes = _infer(proto, model)
        before = len(values)
        values |= _size_arithmetic(model, shapes, values)
        missing = [name for node in model.graph.node for name in node.output if name and shapes.get(name) is None]
        if not missing or len(values) == before:
            break
        _substitute(proto, values)
    if missing:
        shapes |= runtime.run_for_shapes(model, inputs, missing)
        values |= _size_arithmetic(model, shapes, values)
    for node in model.graph.node:
        for name in node.output:
            shapes.setdefault(name, None)
    return shapes, values


def _bind(proto: ModelProto, model: Model, inputs: Mapping[str, Shape]) -> None:
    """Write the probe's sizes into the graph; drop recorded shapes, which spell the open ones."""
    names: dict[str, int] = {}
    for value in proto.graph.input:
        if value.name not in inputs:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
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
            elif not dim.HasField("dim_value"):
                dim.Clear()


def _infer(proto: ModelProto, model: Model) -> dict[str, Shape | None]:
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    shapes: dict[str, Shape | None] = {weight.name: weight.shape for weight in model.weights.values()}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.name in model.weights or not tensor.HasField("shape"):
            continue
        dims = tensor.shape.dim
        known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
        shapes[value.name] = tuple(dim.dim_value for dim in dims) if known else None
    return shapes


def _size_arithmetic(model: Model, shapes: Mapping[str, Shape | None], known: Mapping[str, Array]) -> dict[str, Array]:
    """Compute every small value that follows from known shapes alone."""
    leaves: dict[str, Array] = {}
    follows: set[str] = set()
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if domain_of(node) or node.op_type in _UNSTABLE or any(name in known for name in node.output):
            continue
        if node.op_type in {"Shape", "Size"}:
            shape = shapes.get(node.input[0])
            if shape is not None:
                leaves[node.output[0]] = _shape_value(node, shape)
                follows.add(node.output[0])
            continue
        names = [name for name in node.input if name]
        small = all(math.prod(shape) <= SMALL for name in node.output if (shape := shapes.get(name)) is not None)
        computable = names and small and not captured(node) and all(name in known or name in follows for name in names)
        if computable:
            nodes.append(node)
            follows.update(name for name in node.output if name)
            leaves |= {name: known[name] for name in names if name in known}
    if not nodes:
        return {name: value for name, value in leaves.items() if name in follows}
    computed = runtime.evaluate(nodes, leaves, model.proto.opset_import, model.proto.ir_version)
    small_values = {name: value for name, value in computed.items() if value.size <= SMALL}
    return small_values | {name: value for name, value in leaves.items() if name in follows}


def _shape_value(node: NodeProto, shape: Shape) -> Array:
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)


def _substitute(proto: ModelProto, values: Mapping[str, Array]) -> None:
    """Put computed values in the place of the nodes that compute them, so that inference sees numbers."""
    present = {tensor.name for tensor in proto.graph.initializer}
    nodes: Iterable[NodeProto] = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if len(node.output) == 1 and node.output[0] in values and node.output[0] not in present:
            proto.graph.initializer.append(numpy_helper.from_array(values[node.output[0]], node.output[0]))
        else:
            proto.graph.node.append(node)
