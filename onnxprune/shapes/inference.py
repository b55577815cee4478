"""Infers shapes and size arithmetic of a graph whose open sizes have values: one probe.

Control flow is laid flat: the nodes of bodies stand in the place of the node that has them. The phis divide the graph into
parts, which are inferred one after the other. A body is inferred as in its first iteration; where the size of a
carried value turns out to change, that size becomes one that depends on data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import itemgetter
from typing import TYPE_CHECKING

from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.ir.control_flow import Along, End, Phi, Trips, walk
from onnxprune.ir.inferred import infer_shapes
from onnxprune.ir.model import Model
from onnxprune.ir.node import CONTROL_FLOW, domain_of, every_graph, is_followed, values_read
from onnxprune.ir.subgraph import extract, outer_values, subgraph
from onnxprune.ir.weights import Weight
from onnxprune.runtime.partition import run_for_shapes
from onnxprune.shapes.binding import DATA_DEPENDENT, Known, bind, fill, substitute
from onnxprune.shapes.clashes import Clash, first_clash
from onnxprune.shapes.size_arithmetic import size_arithmetic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from onnx import GraphProto, NodeProto, ValueInfoProto

    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["Inferred", "infer"]

_ROUNDS = 32


@dataclass(frozen=True, slots=True)
class Inferred:
    """The result of one probe.

    Attributes:
        shapes: the shape of each value; ``None`` where it stayed unknown.
        values: the small values that are known.
        assumed: axes, by value, of size 1 or another one, which were taken to have the other one because broadcasting does.
        stuck: whether a standard operator whose inputs are known gives nothing: sizes contradict each other.
        clash: where they do, as far as that is known.
    """

    shapes: Known
    values: dict[str, Array]
    assumed: frozenset[tuple[str, int]]
    stuck: bool
    clash: Clash | None = None


def infer(
    model: Model,
    inputs: Mapping[str, Shape],
    constants: Mapping[str, Array],
    stand_in: int,
    doubted: Collection[str] = (),
    *,
    runs: bool = True,
) -> Inferred:
    """Infer all shapes.

    Args:
        model: names are unique over its bodies.
        inputs: the shapes of the graph inputs.
        constants: the values of small constants.
        stand_in: what becomes of sizes that depend on data (how many entries are not zero, how often a loop runs).
        doubted: values whose sizes, and those of all that is computed from them, are no constants to compute others from.
        runs: whether the model is run for shapes that do not follow otherwise.
    """
    carried: Known = {}
    assumed: set[tuple[str, int]] = set()
    while True:
        inference = _Inference(model, inputs, constants, stand_in, carried, doubted, runs=runs)
        inference.settle()
        changes = inference.changes()
        assumed |= inference.assumed
        if changes.items() <= carried.items():
            clash = first_clash(model.graph, model.opset, inference.shapes, inference.values)
            stuck = inference.stuck or clash is not None
            return Inferred(inference.shapes, inference.values, frozenset(assumed), stuck, clash)
        carried |= changes


class _Inference:
    """Shapes as far as they are known; ``carried`` are those of values carried around a loop that are not their initial ones.

    Its attributes are what one run over the graph has learnt so far, and what it was given; they change together, node by node.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Shape],
        constants: Mapping[str, Array],
        stand_in: int,
        carried: Known,
        doubted: Collection[str],
        *,
        runs: bool,
    ) -> None:
        self.model, self.stand_in, self.carried, self.runs = model, stand_in, carried, runs
        self.proto = model.skeleton()
        self.steps = _flatten(self.proto, model.opset)
        self.declared = bind(self.proto, inputs)
        self.values = dict(constants)
        self.shapes: Known = {**inputs, **{weight.name: weight.shape for weight in model.weights.values()}}
        self.infos: dict[str, ValueInfoProto] = {value.name: value for value in self.proto.graph.input}
        self.assumed: set[tuple[str, int]] = set()
        self.stuck = False
        self.doubted = self._from(doubted)

    def settle(self) -> None:
        """Infer everything."""
        part: list[NodeProto] = []
        for step in self.steps:
            if not isinstance(step, Phi):
                part.append(step)
            elif not step.back:
                self._infer(part)
                part = []
                self._pass(step)
        self._infer(part)
        self.shapes |= {name: shape for name, shape in self.declared.items() if self.shapes.get(name) is None}

    # One part

    def _infer(self, nodes: list[NodeProto]) -> None:
        """Infer until nothing new follows; what inference does not know is found by running the nodes."""
        if not nodes:
            return
        proto = self._part(nodes)
        unknown = nodes
        for _ in range(_ROUNDS):
            inferred = infer_shapes(proto, self.model.name, sizes=True)
            incomplete = self._read(inferred)
            before = len(self.values)
            self._compute(nodes)
            unknown = [node for node in nodes if any(n and self.shapes.get(n) is None for n in node.output)]
            if not unknown:
                break
            substitute(proto, self.values)
            reached = [node for node in unknown if self._reached(node)]
            if not fill(proto, reached, self.shapes, incomplete, self.stand_in) and len(self.values) == before:
                break
        if len(nodes) < len(self.steps):
            self.infos |= {value.name: value for value in (*inferred.value_info, *inferred.output)}
        if any(self._reached(node) and node.op_type not in CONTROL_FLOW | DATA_DEPENDENT for node in unknown):
            no_tensors = {value.name for value in inferred.value_info if value.type.WhichOneof("value") != "tensor_type"}
            made = (name for node in unknown for name in node.output if name and name not in no_tensors)
            missing = [name for name in made if self.shapes.get(name) is None]
            if self.runs:
                self._run(nodes, missing)
            standard = (name for node in unknown if not domain_of(node) and self._reached(node) for name in node.output)
            self.stuck |= any(self.shapes.get(name) is None for name in {*standard}.intersection(missing))
        for name in (name for node in unknown for name in node.output):
            self.shapes.setdefault(name, None)

    def _part(self, nodes: list[NodeProto]) -> ModelProto:
        """A model of some of the nodes, in which what is known of what they read is declared."""
        if len(nodes) == len(self.steps):
            return self.proto
        read = outer_values(nodes)
        proto = subgraph(self.proto, nodes, (self.infos[name] for name in read if self._is_input(name)), ())
        for name in read:
            if name in self._constants:
                proto.graph.initializer.append(self._constants[name])
            elif self._is_computed(name):
                proto.graph.initializer.append(numpy_helper.from_array(self.values[name], name))
        made = {name for node in nodes for name in node.output}
        proto.graph.value_info.extend(self._recorded[name] for name in made & self._recorded.keys())
        return proto

    def _is_computed(self, name: str) -> bool:
        """Tell whether a value follows from the sizes of this probe."""
        return name in self.values and name not in self.model.weights

    def _is_input(self, name: str) -> bool:
        """Tell whether a part must be told the type of a value; of large constants no more is known."""
        return name in self.infos and name not in self._constants and not self._is_computed(name)

    @cached_property
    def _constants(self) -> dict[str, TensorProto]:
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @cached_property
    def _recorded(self) -> dict[str, ValueInfoProto]:
        return {value.name: value for value in (*self.proto.graph.value_info, *self.proto.graph.output)}

    def _run(self, nodes: list[NodeProto], missing: Collection[str]) -> None:
        """Run some of the nodes for the shapes of what they make."""
        model = self._runnable(nodes)
        made = {name for node in model.graph.node for name in node.output}
        inputs = {value.name: shape for value in model.inputs if (shape := self.shapes[value.name]) is not None}
        found = run_for_shapes(model, inputs, [name for name in missing if name in made])
        self.shapes |= found
        self._compute(nodes)
        for name, shape in found.items():
            self.infos[name] = helper.make_tensor_value_info(name, self._type(name) or TensorProto.FLOAT, shape)

    def _runnable(self, nodes: list[NodeProto]) -> Model:
        """The model, or those of some of its nodes whose inputs are known."""
        if len(nodes) == len(self.steps):
            return self.model
        read = outer_values(nodes)
        computed = {name: Weight(name, None, self.values[name]) for name in read if self._is_computed(name)}
        whole = Model(self.proto, {**self.model.weights, **computed}, self.model.name, sizes=self.model.sizes)
        known = {*whole.weights, *(name for name in read if self._is_input(name) and self.shapes.get(name) is not None)}
        runnable = []
        for node in nodes:
            if known.issuperset(values_read(node)):
                runnable.append(node)
                known.update(node.output)
        return extract(whole, runnable, (), self.infos.__getitem__)

    def _compute(self, nodes: Iterable[NodeProto]) -> None:
        computed = size_arithmetic(self.model, nodes, self.shapes, self.values, self.doubted)
        self.values |= computed
        self.shapes |= {name: value.shape for name, value in computed.items()}

    def _reached(self, node: NodeProto) -> bool:
        """Tell whether the shapes of everything a node reads are known."""
        return all(self.shapes.get(name) is not None for name in node.input if name)

    def _read(self, inferred: GraphProto) -> dict[str, ValueInfoProto]:
        """Take over whole shapes; returns what is known of the others."""
        incomplete: dict[str, ValueInfoProto] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            name, tensor = value.name, value.type.tensor_type
            if name in self.model.weights or name in self.values or not tensor.HasField("shape"):
                continue
            dims = tensor.shape.dim
            known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
            self.shapes[name] = tuple(dim.dim_value for dim in dims) if known else None
            if not known:
                incomplete[name] = value
        return incomplete

    # What control flow passes on

    def _pass(self, phi: Phi) -> None:
        """Declare what comes from known shapes."""
        name, shape = phi.target.value, self._shape(phi)
        self.shapes[name] = shape
        dtype = next(filter(None, (self._type(end.value) for end in phi.sources)), phi.dtype)
        if shape is not None and dtype:
            self.infos[name] = helper.make_tensor_value_info(name, dtype, shape)

    def _type(self, name: str) -> int:
        """The element type of a tensor; 0 if it is not known."""
        if name in self.model.weights:
            return self.model.weights[name].dtype
        if name in self.values:
            return int(helper.np_dtype_to_tensor_dtype(self.values[name].dtype))
        return self.infos[name].type.tensor_type.elem_type if name in self.infos else 0

    def _shape(self, phi: Phi) -> Shape | None:
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
            known = self._size(size)
            if known is None:
                return None
            whole.insert(axis, known)
        return tuple(whole)

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
            if a != b and 1 in {a, b}:
                sizes[axis] = max(a, b)
                self.assumed.add((name, axis))
            elif a != b:
                sizes[axis] = self.stand_in
        return tuple(sizes)

    def _size(self, size: Trips | Along) -> int | None:
        if isinstance(size, Along):
            shape = self.shapes.get(size.value)
            return None if shape is None else shape[size.axis]
        known = self.values.get(size.limit)
        if known is not None and all(name in self.values and self.values[name].all() for name in size.conditions):
            return int(known.item())
        return self.stand_in

    def changes(self) -> Known:
        """The shapes, as far as now known, of values whose shape is another one after an iteration."""
        found: Known = {}
        for phi in self.steps:
            if not isinstance(phi, Phi) or not phi.back:
                continue
            shape, after = self.shapes.get(phi.target.value), self._shared(phi.sources[0])
            if shape is not None and after is not None and shape != after:
                found[phi.target.value] = self._merge(phi.target.value, shape, after)
        return found

    def _from(self, values: Collection[str]) -> set[str]:
        """Values, and all that is computed from them."""
        found, before = set(values), -1
        while before < len(found):
            before = len(found)
            for step in self.steps if values else ():
                node = step.proto() if isinstance(step, Phi) else step
                if not found.isdisjoint(node.input):
                    found.update(node.output)
        return found


def _flatten(proto: ModelProto, opset: int) -> list[NodeProto | Phi]:
    """Put the nodes of bodies, and what is recorded of their values, in the place of control flow; returns what there is now."""
    if not any(is_followed(node) for node in proto.graph.node):
        return list(proto.graph.node)
    steps = [step for _, step in walk(proto.graph, opset)]
    bodies = list(every_graph(proto.graph))[1:]
    recorded = [value for body in bodies for value in (*body.value_info, *body.output)]
    del proto.graph.node[:]
    proto.graph.node.extend(step for step in steps if not isinstance(step, Phi))
    proto.graph.value_info.extend(recorded)
    return steps
