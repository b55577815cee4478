"""A graph cut into segments, each of which makes a small model that can be timed alone at any widths.

A segment is a node with multiply-accumulates and what runs on its result: bias, normalisation, activation, residual sum, pool.
Runtimes fuse these, so they are timed together. A node that would bring more than two widths together starts a segment of its
own. The widths that a segment depends on are its **coordinates**: factors of the coupling, as coarse as they can be.

What convolutions exchange lies in blocks of channels in ONNX Runtime, and a model of one convolution would mostly reorder.
So images reach a segment from a convolution of one channel (`_prime`) and leave it into one that reads a single pixel
(`_drain`), which both speak the layout of the neighbours; the *baseline* is the same without the segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.axes.coupling import CONVOLUTIONS, Coupling
from onnxprune.axes.factors import Factor, leaves, length
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.model import pinned_sizes
from onnxprune.ir.node import captured, is_followed, set_attribute, values_read
from onnxprune.ir.subgraph import subgraph
from onnxprune.shapes.probes import shapes_at
from onnxprune.shapes.size_arithmetic import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array
    from onnxprune.shapes.probes import Shapes

__all__ = ["Segment", "SegmentedGraph", "constant_bytes"]

_COORDINATES = 2
"""Widths that a segment may bring together; more make too many combinations to time."""
_LITERAL = 8
"""Elements up to which a float constant keeps its values: bounds, factors, exponents, scales of a resize."""
_BLOCK = 4, 16
"""ONNX Runtime keeps images in blocks where a convolution reads a multiple of the first and at least the second."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Attributes:
    nodes: places in the graph's list of nodes, ascending.
    coordinates: the factors that its time depends on.
    inputs: values made outside it; no constants.
    outputs: values of its own that are read outside it.
    anchor: the node with multiply-accumulates, if it has one.
    """

    nodes: tuple[int, ...]
    coordinates: tuple[Factor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    anchor: NodeAxes | None


@dataclass(slots=True)
class _Open:
    """A segment that may still grow."""

    anchor: NodeAxes | None
    nodes: list[int] = field(default_factory=list)
    coordinates: tuple[Factor, ...] = ()
    inputs: dict[str, None] = field(default_factory=dict)
    outputs: dict[str, None] = field(default_factory=dict)


class SegmentedGraph:
    """The segments of a graph.

    What is dynamic in the graph is dynamic in the models of its segments, because runtimes optimise less there; ``inputs`` are
    the shapes to time it with. The size of each symbol is in the metadata of a model.
    """

    def __init__(self, model: Model, coupling: Coupling, shapes: Shapes, inputs: Mapping[str, Shape]) -> None:
        same = all(shapes.shapes.get(name) == shape for name, shape in inputs.items())
        self.model, self.shapes = model, shapes if same else shapes_at(model, inputs)
        self.axes, self.dynamic = coupling.axes, shapes.dynamic
        bodies = {place for place, node in enumerate(model.graph.node) if is_followed(node)}
        self.nodes = {node.index: node for node in coupling.nodes if node.index not in bodies}
        self.types = _types(model)
        self.pinned = pinned_sizes(model)
        self._free = frozenset(group.factor for group in coupling.groups)
        self._below: dict[Factor, frozenset[Factor]] = {}
        self._images: set[str] = set()
        self._symbols = self._named()
        self.segments = self._segments()

    def below(self, factor: Factor) -> frozenset[Factor]:
        """The free leaves of a factor."""
        root = factor.root
        if root not in self._below:
            self._below[root] = self._free.intersection(leaves(root))
        return self._below[root]

    def _segments(self) -> tuple[Segment, ...]:
        opened: list[_Open] = []
        maker: dict[str, int] = {}
        exported = {value.name for value in self.model.graph.output}
        for place, node in enumerate(self.model.graph.node):
            made = [name for name in node.output if name]
            if all(name in self.shapes.values for name in made):
                continue  # size arithmetic, which takes no time and is known
            read = [name for name in dict.fromkeys(values_read(node)) if self._flows(name)]
            at = self._place(place, [maker[name] for name in read if name in maker], opened)
            opened[at].nodes.append(place)
            for name in read:
                if maker.get(name) != at:
                    opened[at].inputs[name] = None
                    if name in maker:
                        opened[maker[name]].outputs[name] = None
            for name in made:
                maker[name] = at
                if name in exported:
                    opened[at].outputs[name] = None
        convolves = [any(self.model.graph.node[place].op_type in CONVOLUTIONS for place in one.nodes) for one in opened]
        for at, one in enumerate(opened):
            self._images |= {name for name in one.inputs if name in maker and (convolves[at] or convolves[maker[name]])}
        self._images -= exported
        return tuple(
            Segment(tuple(one.nodes), one.coordinates, tuple(one.inputs), tuple(one.outputs), one.anchor) for one in opened
        )

    def _flows(self, name: str) -> bool:
        """Tell whether a value is computed when the model runs."""
        return name not in self.model.weights and name not in self.shapes.values

    def _place(self, place: int, producers: Sequence[int], opened: list[_Open]) -> int:
        """The segment of a node: that of its latest producer, or a new one."""
        node = self.nodes.get(place)
        moving = [letter.root for letter in node.letters.values() if self.below(letter)] if node else []
        anchored = node is None or bool(node.rule.macs)
        if producers and not anchored:
            at = max(producers)
            joined = self._disjoint([*opened[at].coordinates, *moving])
            if len(joined) <= max(_COORDINATES, len(opened[at].coordinates)):
                opened[at].coordinates = joined
                return at
        opened.append(_Open(node if anchored else None, coordinates=self._disjoint(moving)))
        return len(opened) - 1

    def _disjoint(self, factors: Iterable[Factor]) -> tuple[Factor, ...]:
        """Factors that share no leaf and say all that these say: a sum or product beside one of its parts is taken apart."""
        found = tuple(dict.fromkeys(factors))
        while True:
            owners: dict[Factor, list[Factor]] = {}
            for factor in found:
                for leaf in self.below(factor):
                    owners.setdefault(leaf, []).append(factor)
            shared = {factor for some in owners.values() if len(some) > 1 for factor in some if factor.kind}
            if not shared:
                return found
            parts = [part for factor in found for part in (factor.parts if factor in shared else (factor,))]
            found = tuple(dict.fromkeys(part for part in parts if self.below(part)))

    def work(self, segment: Segment, sizes: Mapping[Factor, int]) -> float:
        """Multiply-accumulates of the anchor, or else the sum of the widths: what time is about proportional to."""
        if segment.anchor is None or not segment.anchor.rule.macs:
            return float(sum(length(factor, sizes) for factor in segment.coordinates))
        letters, known = segment.anchor.letters, segment.anchor.sizes
        total = 0.0
        for product in segment.anchor.rule.macs:
            term = 1.0
            for letter in product:
                term *= length(letters[letter], sizes) if letter in letters else known[letter]
            total += term
        return total

    def timed(self, segment: Segment, sizes: Mapping[Factor, int]) -> tuple[ModelProto, ModelProto] | None:
        """A model of the segment under some widths, and its baseline; ``None`` if a shape or type is unknown.

        Sizes, indices and scalars are as they are; other constants have their shape and no data.
        """
        try:
            return _Builder(self, segment, sizes).whole(), _Builder(self, segment, sizes).baseline()
        except KeyError:
            return None

    def whole(self, sizes: Mapping[Factor, int]) -> ModelProto | None:
        """The whole graph under some widths, in the same form."""
        graph = self.model.graph
        inputs, outputs = (tuple(value.name for value in side) for side in (self.model.inputs, graph.output))
        try:
            return _Builder(self, Segment(tuple(range(len(graph.node))), (), inputs, outputs, None), sizes).whole()
        except KeyError:
            return None

    def image(self, name: str, sizes: Mapping[Factor, int]) -> Shape | None:
        """The shape of a value that convolutions make or read, [batch, channels, height, width]; ``None`` for other values."""
        if name not in self._images or self.types[name] != TensorProto.FLOAT:
            return None
        shape = self.shape(name, sizes)
        return shape if len(shape) == 4 and min(shape) > 0 else None

    def shape(self, name: str, sizes: Mapping[Factor, int]) -> Shape:
        """The shape of a value under some widths; KeyError if it is not known."""
        weight = self.model.weights.get(name)
        shape = weight.shape if weight else self.shapes.shapes.get(name)
        if shape is None:
            raise KeyError(name)
        axes = self.axes.get(name)
        if axes is None:
            return shape
        return tuple(scaled(size, axis, sizes) for size, axis in zip(shape, axes, strict=True))

    def symbol(self, name: str, axis: int) -> object | None:
        """The identity of a dynamic size: its name, or the factor that has it everywhere; ``None`` for a static size."""
        flags = self.dynamic.get(name, ())
        if axis >= len(flags) or not flags[axis]:
            return None
        axes = self.axes.get(name)
        root = axes[axis].root if axes else (name, axis)
        return self._symbols.get(root, root)

    def _named(self) -> dict[object, object]:
        """The names that graph inputs give to factors."""
        found: dict[object, object] = {}
        for value in self.model.inputs:
            dims = value.type.tensor_type.shape.dim
            for axis, dim in zip(self.axes.get(value.name, ()), dims, strict=False):
                if dim.dim_param:
                    found[axis.root] = dim.dim_param
        return found


def scaled(size: int, factor: Factor, sizes: Mapping[Factor, int]) -> int:
    """A size that a factor stands for, under some widths; it may hold dynamic sizes as well, at another value than the factor."""
    return size * length(factor, sizes) // factor.size if factor.size else size


def constant_bytes(model: ModelProto) -> int:
    """Bytes of the constants of a model, with or without data."""
    tensors = model.graph.initializer
    return sum(math.prod(t.dims) * helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in tensors)


def _types(model: Model) -> dict[str, int]:
    """The element types of values, where they are known."""
    values = typed_values(infer_shapes(model.skeleton(), model.name))
    return {value.name: value.type.tensor_type.elem_type for value in values if value.type.tensor_type.elem_type}


class _Builder:
    """One small model."""

    def __init__(self, cut: SegmentedGraph, segment: Segment, sizes: Mapping[Factor, int]) -> None:
        self.cut, self.segment, self.sizes = cut, segment, sizes
        self.bodies = any(captured(cut.model.graph.node[place]) for place in segment.nodes)
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[str] = []
        self.constants: list[TensorProto] = []
        self.names: dict[str, str] = {}
        self.count = 0
        self.symbols: dict[object, tuple[str, int]] = {}
        self.spelled: dict[str, Array] = {}

    def whole(self) -> ModelProto:
        """The segment, between its inputs and its outputs."""
        for name in self.segment.inputs:
            self._prime(name)
        for place in self.segment.nodes:
            self._respell(place)
        for place in self.segment.nodes:
            self._node(place)
        for name in self.segment.outputs:
            self._drain(name)
        return self._model()

    def baseline(self) -> ModelProto:
        """The model of the segment without the segment: its primed inputs, drained at once."""
        for name in self.segment.inputs:
            if self.cut.image(name, self.sizes):
                self._prime(name)
                self._drain(name)
        if not self.nodes:
            self.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
            self.nodes.append(helper.make_node("Neg", ["x"], ["y"]))
            self.outputs.append("y")
        return self._model()

    def _model(self) -> ModelProto:
        model = subgraph(self.cut.model.proto, self.nodes, self.inputs, self.outputs)
        model.graph.initializer.extend(self.constants)
        helper.set_model_props(model, {symbol: str(size) for symbol, size in self.symbols.values()})
        return model

    def _input(self, name: str, value: str, shape: Shape) -> None:
        """Declare an input that stands for a value of the graph, or for an image of the same height, width and batch."""
        dims: list[int | str] = []
        for axis, size in enumerate(shape):
            known = self.cut.symbol(value, axis)
            if known is None:
                dims.append(size)
            else:
                symbol, _ = self.symbols.setdefault(known, (f"d{len(self.symbols)}", size))
                dims.append(symbol)
        self.inputs.append(helper.make_tensor_value_info(name, self.cut.types[value], dims))

    def _fresh(self, name: str = "") -> str:
        """A name for a value: numbered, so that equal segments give equal models, unless bodies know the names outside."""
        self.count += 1
        made = name if name and self.bodies else f"segment.{self.count}"
        if name:
            self.names[name] = made
        return made

    def _prime(self, name: str) -> None:
        """Provide an input; an image that a convolution reads in blocks as a convolution writes it."""
        shape, made = self.cut.shape(name, self.sizes), self._fresh(name)
        multiple, least = _BLOCK
        if self.cut.image(name, self.sizes) and shape[1] % multiple == 0 and shape[1] >= least:
            source, weight = self._fresh(), self._fresh()
            self.constants.append(TensorProto(name=weight, data_type=TensorProto.FLOAT, dims=[shape[1], 1, 1, 1]))
            self.nodes.append(helper.make_node("Conv", [source, weight], [made]))
            made, shape = source, (shape[0], 1, *shape[2:])
        self._input(made, name, shape)

    def _drain(self, name: str) -> None:
        """Make a value an output; of an image only one pixel, by a convolution, or writing the image would be timed too."""
        made, shape = self.names[name], self.cut.image(name, self.sizes)
        if shape:
            weight, pixel = self._fresh(), self._fresh()
            self.constants.append(TensorProto(name=weight, data_type=TensorProto.FLOAT, dims=[1, shape[1], 1, 1]))
            self.nodes.append(helper.make_node("Conv", [made, weight], [pixel], strides=shape[2:]))
            made = pixel
        self.outputs.append(made)

    def _node(self, place: int) -> None:
        node, known = NodeProto(), self.cut.nodes.get(place)
        node.CopyFrom(self.cut.model.graph.node[place])
        for noise in ("name", "doc_string", "metadata_props"):
            node.ClearField(noise)
        if known is not None and any(length(factor, self.sizes) != factor.size for factor in known.letters.values()):
            for name, value in known.respelled(self.sizes).items():
                set_attribute(node, name, value)
        for name in values_read(node):
            if name not in self.names:
                self._read(name)
        inputs, outputs = [self.names.get(name, "") for name in node.input], [name and self._fresh(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        self.nodes.append(node)

    def _respell(self, place: int) -> None:
        """Work out the vectors of sizes that a node reads."""
        node = self.cut.nodes.get(place)
        if node is None:
            return
        for position, spelled in node.rule.sizes_at.items():
            name = node.view.inputs[position] if node.view.has(position) else ""
            for source in (name, self.cut.pinned.get(name, "")):
                values = self._known(source)
                if values is None:
                    continue
                values = self.spelled[source] = values.copy()
                for entry, axis in enumerate(spelled):
                    size = int(values.reshape(-1)[entry])
                    if axis is not None and size > 0:
                        values.reshape(-1)[entry] = scaled(size, node.factor(axis), self.sizes)

        for letter, (source, at) in node.equation.picks.items():
            name = node.view.inputs[at]
            values, letters = self._known(name), node.letters
            if values is not None and source in letters:  # as many as remain; which ones takes no time
                remain = length(letters[source], self.sizes)
                values = values % remain
            if values is not None:
                self.spelled[name] = values[: length(letters[letter], self.sizes)]

    def _known(self, name: str) -> Array | None:
        weight = self.cut.model.weights.get(name)
        return weight.array() if weight else self.cut.shapes.values.get(name)

    def _read(self, name: str) -> None:
        """Provide a constant: sizes, indices and small ones as they are, of others the shape."""
        values, weight = self.spelled.get(name), self.cut.model.weights.get(name)
        shape = self.cut.shape(name, self.sizes)
        if values is None and (weight is None or weight.size <= (_LITERAL if weight.is_float else SMALL)):
            values = self._known(name)
            if values is None:
                raise KeyError(name)
            values = values[tuple(slice(size) for size in shape)]
        made = self._fresh(name)
        if values is not None:
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), made))
        elif weight is not None:
            self.constants.append(TensorProto(name=made, data_type=weight.dtype, dims=shape))
