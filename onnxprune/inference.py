"""Shapes and size arithmetic of a graph whose open sizes have been given values: one probe.

Control flow is laid flat first: the nodes of bodies stand in the place of the node that has them, and what it passes on is
declared as soon as the shapes it comes from are known. A body is inferred as in its first iteration; where the size of a
carried value turns out to change, that size becomes one that depends on data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial, reduce
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from onnxprune.flow import Along, End, Phi, Trips, walk
from onnxprune.model import Model
from onnxprune.node import CONTROL_FLOW, captured, domain_of, every_graph, is_followed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

    from onnxprune.equation import Shape
    from onnxprune.weights import Array

__all__ = ["SMALL", "Inferred", "infer"]

SMALL = 4096
"""Elements up to which a constant is offered to rules and size arithmetic is computed."""

_ROUNDS = 32
_DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})
_UNSTABLE = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"})

Known = dict[str, "Shape | None"]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What one probe tells.

    Attributes:
        shapes: the shape of each value; ``None`` where it stayed unknown.
        values: the small values that are known.
        assumed: axes, by value, of size 1 or another one, which were taken to have the other one because broadcasting does.
    """

    shapes: Known
    values: dict[str, Array]
    assumed: frozenset[tuple[str, int]]


def infer(
    model: Model, inputs: Mapping[str, Shape], constants: Mapping[str, Array], stand_in: int, *, broadcast: bool = True
) -> Inferred:
    """Infer all shapes.

    Args:
        model: names are unique over its bodies.
        inputs: the shapes of the graph inputs.
        constants: the values of small constants.
        stand_in: what becomes of sizes that depend on data (how many entries are not zero, how often a loop runs).
        broadcast: whether assumptions are made; if not, these sizes depend on data too.
    """
    carried: Known = {}
    while True:
        inference = _Inference(model, inputs, constants, stand_in, carried, broadcast=broadcast)
        inference.settle()
        changes = inference.changes()
        if changes.items() <= carried.items():
            return Inferred(inference.shapes, inference.values, frozenset(inference.assumed))
        carried |= changes


class _Inference:
    """Shapes as far as they are known; ``carried`` are those of values carried around a loop that are not their initial ones."""

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Shape],
        constants: Mapping[str, Array],
        stand_in: int,
        carried: Known,
        *,
        broadcast: bool,
    ) -> None:
        self.model, self.inputs, self.stand_in, self.carried = model, dict(inputs), stand_in, carried
        self.broadcast, self.assumed = broadcast, set[tuple[str, int]]()
        self.proto = model.skeleton()
        self.phis = flatten(self.proto, model.opset)
        self.nodes = list(self.proto.graph.node)
        _bind(self.proto, model, inputs)
        self.values = dict(constants)
        self.shapes: Known = {}
        self.types: dict[str, int] = {}
        self.waiting = [phi for phi in self.phis if not phi.back]

    def settle(self) -> None:
        """Infer until nothing new follows; what inference does not know is found by running the model."""
        self._rounds()
        while self._needs_run() and self._run() and self.waiting:
            self._rounds()
        for name in (name for node in self.nodes for name in node.output):
            self.shapes.setdefault(name, None)

    def _rounds(self) -> None:
        patient = True
        for _ in range(_ROUNDS + 2 * len(self.phis)):
            if self._round(patient=patient):
                patient = True
            elif patient and self.waiting:
                patient = False
            else:
                break

    def _round(self, *, patient: bool) -> bool:
        """Whether anything new is known. Without patience, loops that may end early get a number of iterations."""
        inferred = onnx.shape_inference.infer_shapes(self.proto, data_prop=True).graph
        self.shapes, incomplete = _read(inferred, self.model)
        before = len(self.values)
        self.values |= _size_arithmetic(self.model, self.nodes, self.shapes, self.values)
        self.shapes |= {name: value.shape for name, value in self.values.items()}
        unknown = self._open()
        if not unknown and not self.waiting:
            return False
        _substitute(self.proto, self.values)
        filled = _fill(self.proto, unknown, self.shapes, incomplete, self.stand_in)
        if self.waiting:
            self.types = _types(inferred, self.model)
            filled |= self._declare(patient=patient)
        return filled or len(self.values) > before

    def _open(self) -> list[NodeProto]:
        return [node for node in self.nodes if any(n and self.shapes.get(n) is None for n in node.output)]

    # What control flow passes on

    def _declare(self, *, patient: bool) -> bool:
        """Declare what comes from known shapes; whether there was any."""
        before, waiting = len(self.waiting), self.waiting
        self.waiting = []
        for phi in waiting:
            name, shape = phi.target.value, self._shape(phi, patient=patient)
            dtype = self._type(phi)
            if shape is None or not dtype:
                self.waiting.append(phi)
                continue
            self.shapes[name], self.types[name] = shape, dtype
            self.proto.graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return len(self.waiting) < before

    def _shape(self, phi: Phi, *, patient: bool) -> Shape | None:
        if phi.target.value in self.carried:
            return self.carried[phi.target.value]
        shapes = [self._shared(end) for end in phi.sources]
        if not shapes:
            return (1,) * phi.rank
        if None in shapes:
            return None
        shape = reduce(partial(self._merge, phi.target.value), shapes)
        if shape is None:
            return None
        whole, rank = list(shape), len(shape) + len(phi.sizes)
        for axis, size in sorted(zip((axis % rank for axis in phi.target.own), phi.sizes, strict=True), key=itemgetter(0)):
            known = self._size(size, patient=patient)
            if known is None:
                return None
            whole.insert(axis, known)
        return tuple(whole)

    def _type(self, phi: Phi) -> int:
        return next(filter(None, (self.types.get(end.value) for end in phi.sources)), phi.dtype)

    def _shared(self, end: End) -> Shape | None:
        """The shape of one end of a phi, without the axes of its own."""
        shape = self.shapes.get(end.value)
        if shape is None or len(shape) < len(end.own):
            return None
        own = {axis % len(shape) for axis in end.own}
        return tuple(size for axis, size in enumerate(shape) if axis not in own)

    def _merge(self, name: str, one: Shape | None, other: Shape | None) -> Shape | None:
        """The shape of a value that has one shape or the other; where they differ its sizes depend on data."""
        if one is None or other is None or len(one) != len(other):
            return None
        sizes = list(one)
        for axis, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b and self.broadcast and 1 in {a, b}:
                sizes[axis] = max(a, b)
                self.assumed.add((name, axis))
            elif a != b:
                sizes[axis] = self.stand_in
        return tuple(sizes)

    def _size(self, size: Trips | Along, *, patient: bool) -> int | None:
        if isinstance(size, Along):
            shape = self.shapes.get(size.value)
            return None if shape is None else shape[size.axis]
        known = self.values.get(size.limit)
        if known is not None and all(name in self.values and self.values[name].all() for name in size.conditions):
            return int(known.item())
        return None if patient else self.stand_in

    def changes(self) -> Known:
        """The shapes, as far as now known, of values whose shape is another one after an iteration."""
        found: Known = {}
        for phi in self.phis:
            shape, after = self.shapes.get(phi.target.value), self._shared(phi.sources[0]) if phi.back else None
            if shape is not None and after is not None and shape != after:
                found[phi.target.value] = self._merge(phi.target.value, shape, after)
        return found

    # What only a run tells

    def _needs_run(self) -> bool:
        return any(_reached(node, self.shapes) and node.op_type not in CONTROL_FLOW | _DATA_DEPENDENT for node in self._open())

    def _run(self) -> bool:
        """Run the model, bodies once; whether that told any shape."""
        missing = [name for node in self._open() for name in node.output if name and self.shapes.get(name) is None]
        model = self._flat() if self.phis else self.model
        made = {name for node in model.graph.node for name in node.output}
        found = runtime.run_for_shapes(model, self.inputs, [name for name in missing if name in made])
        self.shapes |= found
        self.values |= _size_arithmetic(self.model, self.nodes, self.shapes, self.values)
        self.shapes |= {name: value.shape for name, value in self.values.items()}
        if self.waiting:  # another round will tell what follows from these
            infos = (
                helper.make_tensor_value_info(name, self.types.get(name) or TensorProto.FLOAT, found[name]) for name in found
            )
            self.proto.graph.value_info.extend(infos)
        return bool(found)

    def _flat(self) -> Model:
        """The model with its bodies laid flat, and of its nodes those whose inputs are known."""
        model = self.model.copy()
        flatten(model.proto, model.opset)
        passed = {phi.target.value for phi in self.phis}
        model.graph.input.extend(value for value in self.proto.graph.input if value.name in passed)
        known = {*model.weights, *(value.name for value in model.graph.input), ""}
        nodes = []
        for node in model.graph.node:
            if known.issuperset(node.input) and known.issuperset(captured(node)):
                nodes.append(node)
                known.update(node.output)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        return model


def flatten(proto: ModelProto, opset: int) -> list[Phi]:
    """Put the nodes of bodies, and what is recorded of their values, in the place of control flow; returns what that did."""
    if not any(is_followed(node) for node in proto.graph.node):
        return []
    steps = [step for _, step in walk(proto.graph, opset)]
    bodies = list(every_graph(proto.graph))[1:]
    recorded = [value for body in bodies for value in (*body.value_info, *body.output)]
    nodes = [step for step in steps if not isinstance(step, Phi)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.value_info.extend(recorded)
    return [step for step in steps if isinstance(step, Phi)]


def _reached(node: NodeProto, shapes: Known) -> bool:
    """Whether the shapes of everything a node reads are known."""
    return all(shapes.get(name) is not None for name in node.input if name)


def _fill(
    proto: ModelProto,
    open_nodes: Iterable[NodeProto],
    shapes: Known,
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


def _read(inferred: GraphProto, model: Model) -> tuple[Known, dict[str, ValueInfoProto]]:
    """Whole shapes, and what is known of the others."""
    partial: dict[str, ValueInfoProto] = {}
    shapes: Known = {weight.name: weight.shape for weight in model.weights.values()}
    for value in (*inferred.output, *inferred.value_info, *inferred.input):  # an input that is an output has a shape
        tensor = value.type.tensor_type
        if value.name in model.weights or not tensor.HasField("shape"):
            continue
        dims = tensor.shape.dim
        known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
        shapes[value.name] = tuple(dim.dim_value for dim in dims) if known else None
        if not known:
            partial[value.name] = value
    return shapes, partial


def _types(inferred: GraphProto, model: Model) -> dict[str, int]:
    """The element type of every tensor that inference can type."""
    values = (*inferred.output, *inferred.value_info, *inferred.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.dtype for weight in model.weights.values()}


def _size_arithmetic(model: Model, nodes: Iterable[NodeProto], shapes: Known, known: Mapping[str, Array]) -> dict[str, Array]:
    """Compute every small value that follows from known shapes alone."""
    leaves: dict[str, Array] = {}
    follows: set[str] = set()
    computable: list[NodeProto] = []
    for node in nodes:
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
        if names and small and not captured(node) and all(name in known or name in follows for name in names):
            computable.append(node)
            follows.update(name for name in node.output if name)
            leaves |= {name: known[name] for name in names if name in known}
    if not computable:
        return {name: value for name, value in leaves.items() if name in follows}
    computed = runtime.evaluate(computable, leaves, model.proto.opset_import, model.proto.ir_version)
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
