"""Write other values into the file that a user gave: zeros where a plan would cut, or sparse weights. It judges what was made."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper

from onnxprune.axes.factors import Indices, mask_outside
from onnxprune.ir.model import Model
from onnxprune.ir.node import captured, domain_of, every_graph, every_node, is_followed, subgraphs
from onnxprune.ir.weights import Array, Weight, constant_of, densify
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all, unique_names
from onnxprune.passes.prune_channels import removed, zero_points

if TYPE_CHECKING:
    from onnx import GraphProto

    from onnxprune.axes.plan import Plan
    from onnxprune.ir.types import Shape
    from onnxprune.passes.analysis import Analysis

__all__ = ["FillSource", "MaskSource", "MaskedSource"]

_WHERE = 9
"""The operator set that brought ``Where``."""


@dataclass(frozen=True)
class MaskedSource:
    """A file with zeros, or other values, in its own constants.

    Attributes:
        model: the file, with them.
        computed: values that nodes of the file make of constants, and that are zeroed where they are read.
        missing: constants of the normalised model that change, and that nothing in the file reads in the same place: where
            there are any, the file cannot be changed so, and ``model`` is not what was asked for.
    """

    model: Model
    computed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskSource(Pass):
    """The original as it was read, with zeros where a plan would cut. Nothing is folded, no size is written, no constant moves.

    A plan is about the constants of the normalised model. Who reads them there is a node that the file has, too: it makes a
    value of the same name. What that node reads in the file is zeroed for it alone, because others may read the same constant
    and lose nothing. A constant is replaced by a copy with zeros. A value that nodes compute of constants (a transposed weight,
    a product with a mask) goes through ``Where``. So no value is taken from the normalised model: whatever a pass did to
    a constant, the file does not have it. Where nothing reads a constant any more, what took its place has its name.
    """

    def run(self, source: Model, analysis: Analysis, plan: Plan) -> MaskedSource:
        """The masked file; the file itself where the plan removes nothing.

        Args:
            source: the model as it was read.
            analysis: of the source, normalised.
            plan: what remains.

        Raises:
            PlanError: the plan is for another model.
        """
        gone = removed(analysis, plan)
        if not gone:
            return MaskedSource(source)
        masked = source.copy()
        if any(map(is_followed, masked.graph.node)):
            unique_names(masked)
        points = zero_points(analysis.model, analysis.coupling)
        edges = _Edges(masked)
        missing: dict[str, None] = {}
        for node in every_node(analysis.model.graph):
            for position, name in enumerate(node.input):
                if name in gone:
                    zeros = _Zeros(analysis.model.weights[name], gone[name], points.get(name))
                    twins = [twin for twin in edges.twins(node) if edges.mask(twin, position, zeros)]
                    missing |= {} if twins else {name: None}
        edges.insert()
        edges.rename()
        return MaskedSource(masked, tuple(edges.computed), tuple(missing))


@dataclass(frozen=True)
class FillSource(Pass):
    """The original as it was read, with the weights that another model has, where it was made of the file by changing weights.

    Who reads a weight is found as in `MaskSource`. Only a constant that has the value it had before takes the new one.
    """

    def run(self, source: Model, before: Model, after: Model) -> MaskedSource:
        """The file with new weights; without any that changed, a copy of it.

        Args:
            source: the model as it was read.
            before: the same, normalised.
            after: the same as ``before``, with other weights, and perhaps biases that its nodes did not have.
        """
        filled = source.copy()
        if any(map(is_followed, filled.graph.node)):
            unique_names(filled)
        edges = _Edges(filled)
        missing: dict[str, None] = {}
        reads = {next(filter(None, node.output), ""): node.input for node in every_node(before.graph)}
        for node in every_node(after.graph):
            read = reads.get(next(filter(None, node.output), ""), ())  # under another name, where a shared constant was copied
            for position, (name, was) in enumerate(itertools.zip_longest(node.input, read, fillvalue="")):
                new, old = after.weights.get(name), before.weights.get(was)
                if new is None or new is old or (old is not None and _same(new, old)):
                    continue
                twins = [twin for twin in edges.twins(node) if edges.fill(twin, position, old, new)]
                missing |= {} if twins else {name: None}
        edges.rename()
        return MaskedSource(filled, (), tuple(missing))


@dataclass(frozen=True, slots=True)
class _Zeros:
    """What a constant of the normalised model loses.

    Attributes:
        weight: the constant.
        indices: what remains of it along each axis.
        point: the integers that stand for zero, where that is not 0.
    """

    weight: Weight
    indices: Indices
    point: Array | None

    def are_in(self, constant: Weight) -> bool:
        """Tell whether a vector has them already, as the zero biases that exporters share between layers do."""
        if len(constant.shape) > 1:
            return False
        array = constant.array()
        return bool(np.array_equal(mask_outside(array, self.indices, self.point), array))


@dataclass
class _Edges:
    """The places of a file where nodes read constants.

    Attributes:
        model: the file, which is changed.
        computed: values that are no constants and were zeroed.
    """

    model: Model
    computed: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graphs = list(every_graph(self.model.graph))
        self._makers = {name: node for graph in graphs for node in graph.node for name in node.output if name}
        self._constants = dict(self.model.weights)
        for graph in graphs:
            self._constants |= _constants(graph)
        self._copies: dict[tuple[str, str], str] = {}
        self._filled: dict[str, str] = {}
        self._before: dict[str, list[NodeProto]] = {}
        self._added: dict[tuple[bytes, Shape, str], str] = {}

    def twins(self, node: NodeProto) -> list[NodeProto]:
        """The nodes of the file that a node of the normalised model comes from: one, or one in each branch of an ``If``."""
        name = next(filter(None, node.output), "")
        return [twin for twin in self._made_by(name) if twin.op_type == node.op_type]

    def _made_by(self, name: str) -> Iterator[NodeProto]:
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "If" and is_followed(maker):  # the branch may be inlined
            at = list(maker.output).index(name)
            for body in subgraphs(maker):
                yield from self._made_by(body.output[at].name)
        elif maker is not None:
            yield maker

    def mask(self, node: NodeProto, position: int, zeros: _Zeros) -> bool:
        """Let a node read zeros; whether it could."""
        name = node.input[position] if position < len(node.input) else ""
        if not name:
            return False
        constant = self._constant(name)
        key = name, zeros.weight.name
        if constant is not None and (constant.shape, constant.dtype) == (zeros.weight.shape, zeros.weight.dtype):
            if zeros.are_in(constant):
                return True
            if key not in self._copies:
                self._copies[key] = self._add(name, constant, zeros)
        elif not zeros.weight.is_float or zeros.point is not None or self.model.opset < _WHERE:
            return False
        elif key not in self._copies:
            self._copies[key] = self._zeroed(name, node.output[0], zeros)
            self.computed[name] = None
        node.input[position] = self._copies[key]
        return True

    def fill(self, node: NodeProto, position: int, old: Weight | None, new: Weight) -> bool:
        """Let a node read a new weight where it read ``old``, or nothing; whether it could."""
        name = node.input[position] if position < len(node.input) else ""
        if not name or old is None:
            if name or old is not None or position > len(node.input):
                return False
            del node.input[position:]
            node.input.append("")
        elif (constant := self._constant(name)) is None or not _same(constant, old):
            return False
        if new.name not in self._filled:
            self._filled[new.name] = self.model.fresh_name(f"{new.name}__filled")
            self.model.weights[self._filled[new.name]] = new.renamed(self._filled[new.name])
        node.input[position] = self._copies[name, new.name] = self._filled[new.name]
        return True

    def _constant(self, name: str) -> Weight | None:
        """The constant that a value is, under whatever name."""
        while (maker := self._makers.get(name)) is not None and maker.op_type == "Identity" and not domain_of(maker):
            name = maker.input[0]
        return self._constants.get(name)

    def _add(self, name: str, constant: Weight, zeros: _Zeros) -> str:
        fresh = self.model.fresh_name(f"{name}__masked")
        copy = constant.derived(constant.shape, partial(mask_outside, indices=zeros.indices, fill=zeros.point))
        self.model.weights[fresh] = copy.renamed(fresh)
        return fresh

    def _zeroed(self, name: str, reader: str, zeros: _Zeros) -> str:
        """A computed value with zeros, made where its first reader stands."""
        zero = self._own("zero", np.zeros((), helper.tensor_dtype_to_np_dtype(zeros.weight.dtype)))
        for axis, positions in enumerate(zeros.indices):
            if positions is None:
                continue
            stays = np.zeros([size if at == axis else 1 for at, size in enumerate(zeros.weight.shape)], np.bool_)
            stays.reshape(-1)[positions] = True
            made = self.model.fresh_name(f"{name}__masked")
            self._before.setdefault(reader, []).append(helper.make_node("Where", [self._own("stays", stays), name, zero], [made]))
            name = made
        return name

    def _own(self, stem: str, value: Array) -> str:
        """A constant of this value, which all that need one share."""
        key = value.tobytes(), value.shape, value.dtype.str
        if key not in self._added:
            name = self._added[key] = self.model.fresh_name(stem)
            self.model.weights[name] = Weight(name, None, value)
        return self._added[key]

    def insert(self) -> None:
        """Put the nodes that zero computed values in front of their readers."""
        for graph in every_graph(self.model.graph) if self._before else ():
            nodes = [new for node in graph.node for new in (*self._before.get(next(iter(node.output), ""), ()), node)]
            if len(nodes) > len(graph.node):
                replace_all(graph.node, nodes)

    def rename(self) -> None:
        """Drop the constants that nothing reads any more, and give their names and places to what is read instead."""
        read = Counter(name for graph in every_graph(self.model.graph) for name in _read(graph))
        gone = {name for one, _ in self._copies for name in self._unread(one, read)} - self.model.overridable
        taken = ({*self.model.weights, *self._makers, *self._constants} | {""}) - gone
        names: dict[str, str] = {}
        for (name, reader), copy in self._copies.items():
            free = next((one for one in (name, reader) if one not in taken and copy in self.model.weights), None)
            if free is not None and copy not in names:
                names[copy] = free
                taken.add(free)
        weights = self.model.weights
        new = {name: weights[copy].renamed(name) for copy, name in names.items()}
        left = {name: new.get(name, weight) for name, weight in weights.items() if name not in names.keys() | gone - new.keys()}
        self.model.weights = left | new
        for graph in every_graph(self.model.graph):
            _drop(graph, gone, gone - new.keys())
            for node in graph.node:
                for at, name in enumerate(node.input):
                    if name in names:
                        node.input[at] = names[name]

    def _unread(self, name: str, read: Counter[str]) -> Iterator[str]:
        """The constants, and copies of them, that only serve to make a value that nothing reads."""
        while not read[name]:
            maker = self._makers.get(name)
            if maker is None or maker.op_type != "Identity" or domain_of(maker):
                if name in self._constants:
                    yield name
                return
            yield name
            name = maker.input[0]
            read[name] -= 1


def _read(graph: GraphProto) -> Iterator[str]:
    """The values that a graph reads and outputs, one for each reader; those that only its bodies read are theirs."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        if not is_followed(node):
            yield from captured(node)


def _drop(graph: GraphProto, gone: set[str], unknown: set[str]) -> None:
    """Take constants out of a graph, and what is recorded of those that have no successor of their name (``unknown``)."""
    _leave(graph.node, lambda node: gone.isdisjoint(node.output))
    _leave(graph.initializer, lambda tensor: tensor.name not in gone)
    _leave(graph.sparse_initializer, lambda sparse: sparse.values.name not in gone)
    _leave(graph.input, lambda value: value.name not in gone)  # old files list constants of bodies there, too
    _leave(graph.value_info, lambda value: value.name not in unknown)


def _leave(field: Any, stays: Callable[[Any], bool]) -> None:
    """Take out of a repeated protobuf field all but what stays."""
    left = [one for one in field if stays(one)]
    if len(left) < len(field):
        replace_all(field, left)


def _same(one: Weight, other: Weight) -> bool:
    """Tell whether two constants have the same value."""
    return (one.shape, one.dtype) == (other.shape, other.dtype) and bool(np.array_equal(one.array(), other.array()))


def _constants(graph: GraphProto) -> dict[str, Weight]:
    """The constants that a graph itself holds: initializers of a body, and ``Constant`` nodes."""
    found = {tensor.name: Weight(tensor.name, tensor) for tensor in graph.initializer}
    found |= {sparse.values.name: Weight(sparse.values.name, None, densify(sparse)) for sparse in graph.sparse_initializer}
    spelled = (constant_of(node) for node in graph.node if node.op_type == "Constant" and not domain_of(node))
    return found | {weight.name: weight for weight in spelled if weight is not None}
