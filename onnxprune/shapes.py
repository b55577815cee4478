"""Concrete shapes for every value of a graph, and which of their sizes are dynamic.

Exporters leave batch, sequence and image sizes open and write arithmetic on them into the graph. A *probe* gives every open
size a definite value, infers all shapes without touching a weight, and computes the integer arithmetic that follows from
them. Two probes with different values tell dynamic sizes from static ones; sizes that depend on data (how many boxes pass a
threshold) get stand-ins that differ too. Only where inference has no answer (custom operators, a few standard ones) the model
itself is run, once per probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from onnxprune.model import Model
from onnxprune.node import CONTROL_FLOW, captured, domain_of
from onnxprune.weights import Array

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnx import ModelProto, NodeProto, ValueInfoProto

    from onnxprune.equation import Shape

__all__ = ["Shapes", "bindings", "probe", "shapes_at"]

SMALL = 4096
"""Elements up to which a constant is offered to rules and size arithmetic is computed."""

_ROUNDS = 32
_DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})
_STAND_INS = (13, 17)
"""Sizes, in the two probes, of what depends on data."""
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


def bindings(inputs: Sequence[ValueInfoProto], batches: tuple[int, int] = (2, 3)) -> list[dict[str, Shape]]:
    """Definite shapes for the graph inputs: one probe, and a second one if any size is open.

    A batch becomes 2 and 3 (or what ``batches`` says), image sizes 64 and 96 pixels, other sizes 16, 24, 32, ... and twice as
    much in the second probe; sizes with one name stay equal.
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
                    named[name] = batches[second] if axis == 0 else _open_size(axis, len(dims), len(named), second=second)
                shape.append(named[name])
            shapes[value.name] = tuple(shape)
        probes.append(shapes)
        if not named:
            break
    return probes


def _open_size(axis: int, rank: int, count: int, *, second: bool) -> int:
    if rank >= 4 and axis >= 2:
        return 96 if second else 64
    return (16 + 8 * count) * (2 if second else 1)


def probe(model: Model) -> Shapes:
    """Shapes of every value of ``model``; no weight is read unless the model has to be run."""
    constants = small_constants(model)
    probes = bindings(model.inputs)
    shapes, values = _probe_once(model, probes[0], constants, _STAND_INS[0])
    dynamic, moving = {}, {}
    if len(probes) > 1 or any(_STAND_INS[0] in (shape or ()) for shape in shapes.values()):
        others, other_values = _probe_once(model, probes[-1], constants, _STAND_INS[1])
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


def shapes_at(model: Model, inputs: Mapping[str, Shape]) -> Shapes:
    """Shapes and computed sizes of every value for inputs of these shapes; what is dynamic is not told."""
    shapes, values = _probe_once(model, inputs, small_constants(model), _STAND_INS[0])
    return Shapes(shapes, values=values)


def small_constants(model: Model) -> dict[str, Array]:
    """The values of the constants that rules may look at."""
    return {w.name: w.array() for w in model.weights.values() if w.size <= SMALL and w.dtype != TensorProto.STRING}


def _probe_once(
    model: Model, inputs: Mapping[str, Shape], constants: Mapping[str, Array], stand_in: int
) -> tuple[dict[str, Shape | None], dict[str, Array]]:
    """One probe; sizes that depend on data (how many entries are not zero) become ``stand_in``."""
    proto = model.skeleton()
    _bind(proto, model, inputs)
    values = dict(constants)
    shapes: dict[str, Shape | None] = {}
    for _ in range(_ROUNDS):
        shapes, partial = _infer(proto, model)
        before = len(values)
        values |= _size_arithmetic(model, shapes, values)
        shapes |= {name: value.shape for name, value in values.items()}
        open_nodes = [node for node in model.graph.node if any(n and shapes.get(n) is None for n in node.output)]
        if not open_nodes:
            break
        _substitute(proto, values)
        filled = _fill(proto, open_nodes, shapes, partial, stand_in)
        if len(values) == before and not filled:
            break
    if any(_reached(node, shapes) and node.op_type not in CONTROL_FLOW | _DATA_DEPENDENT for node in open_nodes):
        missing = [name for node in open_nodes for name in node.output if name and shapes.get(name) is None]
        shapes |= runtime.run_for_shapes(model, inputs, missing)
        values |= _size_arithmetic(model, shapes, values)
        shapes |= {name: value.shape for name, value in values.items()}
    for node in model.graph.node:
        for name in node.output:
            shapes.setdefault(name, None)
    return shapes, values


def _reached(node: NodeProto, shapes: Mapping[str, Shape | None]) -> bool:
    """Whether the shapes of everything a node reads are known."""
    return all(shapes.get(name) is not None for name in node.input if name)


def _fill(
    proto: ModelProto,
    open_nodes: Iterable[NodeProto],
    shapes: Mapping[str, Shape | None],
    partial: Mapping[str, ValueInfoProto],
    stand_in: int,
) -> bool:
    """Give sizes that depend on data a definite value; whether there were any."""
    filled = False
    for node in open_nodes:
        if domain_of(node) or node.op_type not in _DATA_DEPENDENT or not _reached(node, shapes):
            continue
        for name in node.output:
            value = partial.get(name)
            if value is None or shapes.get(name) is not None:
                continue
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = stand_in
            proto.graph.value_info.append(value)
            filled = True
    return filled


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


def _infer(proto: ModelProto, model: Model) -> tuple[dict[str, Shape | None], dict[str, ValueInfoProto]]:
    """Whole shapes, and what is known of the others."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    partial: dict[str, ValueInfoProto] = {}
    shapes: dict[str, Shape | None] = {weight.name: weight.shape for weight in model.weights.values()}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.name in model.weights or not tensor.HasField("shape"):
            continue
        dims = tensor.shape.dim
        known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
        shapes[value.name] = tuple(dim.dim_value for dim in dims) if known else None
        if not known:
            partial[value.name] = value
    return shapes, partial


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
