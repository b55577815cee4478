"""Linear readers: the nodes whose output is a linear map, by constant weights, of one activation.

Whatever the operator, a reader is seen as ``y[g, r, :] = x[g, r, :] @ w[g, :, :] + b[g, :]``: groups *g* that the operator keeps
apart (grouped convolutions, batched products), rows *r* (samples and positions), features (input channels, times kernel taps)
and outputs. Statistics, selection and repair are linear algebra on this form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.equation import ANONYMOUS, Axis
from onnxprune.axes.factors import labels, length
from onnxprune.ir.weights import Array, Weight
from onnxprune.linear.batchnorm import Norm, norm_behind
from onnxprune.linear.im2col import Geometry

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model

__all__ = ["Picked", "Reader", "install", "linear_readers", "matrix_of", "outer_consumers", "positions_read"]

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "Einsum"})
Consumers = Mapping[str, list[tuple["NodeProto", int]]]
TAP = "tap"
"""The letter of kernel taps."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A node that is linear in one activation.

    Attributes:
        node: the node and its letters.
        data: the activation it reads.
        weight: its matrix.
        bias: the constant that is added to its output; empty if there is none.
        output: its output, after the bias (a `MatMul` and the `Add` of its bias are two nodes) and the batch normalisation.
        can_add_bias: whether there is no bias, but one can be written.
        roles: for each letter: ``row``, ``group``, ``feature`` or ``output``.
        sizes: of the letters.
        scale: what the product, and the bias, are multiplied by in the node.
        norm: the batch normalisation behind, which then has the bias.
    """

    node: NodeAxes
    data: str
    weight: str
    bias: str
    output: str
    can_add_bias: bool
    roles: Mapping[str, str] = field(repr=False)
    sizes: Mapping[str, int] = field(repr=False)
    scale: tuple[float, float] = (1.0, 1.0)
    norm: Norm | None = None

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.view.name

    @property
    def affine(self) -> bool:
        """Whether there is, or may be, a bias."""
        return bool(self.bias) or self.can_add_bias

    @property
    def _positions(self) -> tuple[int, int]:
        inputs = list(self.node.view.inputs)
        return inputs.index(self.data), inputs.index(self.weight)

    def design(self, x: Array, picked: Picked) -> Array:
        """Rows of the input. [groups, rows, features]"""
        if picked.taps is None:
            return self._arrange(x, self._data_axes, ("group", "row", "feature"))[:, picked.places]
        flat = x.reshape(*x.shape[:2], -1)
        padded = np.concatenate([flat, np.zeros((*flat.shape[:2], 1), x.dtype)], 2)
        spelled = (*self._data_axes[:2], ANONYMOUS, TAP)
        return self._arrange(padded[:, :, picked.taps], spelled, ("group", "row", "feature"))

    def targets(self, y: Array, picked: Picked) -> Array:
        """Rows of the output. [groups, rows, outputs]"""
        spelled = self.node.equation.spelling[1][0]
        if picked.taps is None:
            return self._arrange(y, spelled, ("group", "row", "output"))[:, picked.places]
        y = y.reshape(*y.shape[:2], -1)[:, :, picked.places]
        return self._arrange(y, (*spelled[:2], ANONYMOUS), ("group", "row", "output"))

    def matrix(self, w: Array) -> Array:
        """The weight as a matrix, multiplied as the node does. [groups, features, outputs]"""
        w, spelled = self._weight_axes(w)
        return self._arrange(w, spelled, ("group", "feature", "output")) * self.scale[0]

    def bias_matrix(self, b: Array) -> Array:
        """The bias, multiplied as the node does. [groups, outputs]"""
        return b.reshape(self.groups, -1) * self.scale[1]

    def weight_of(self, matrix: Array, like: Array) -> Array:
        """A matrix [groups, features, outputs] as the node holds it: shape and type of ``like``."""
        w, spelled = self._weight_axes(like)
        names, sizes = self._letters(w.shape, spelled)
        order = self._order(names, ("group", "feature", "output"))
        back = (matrix / self.scale[0]).reshape([sizes[name] for name in order]).transpose([order.index(name) for name in names])
        return np.ascontiguousarray(back.reshape(like.shape)).astype(like.dtype)

    def bias_of(self, bias: Array, like: Array) -> Array:
        """A bias [groups, outputs] as the node holds it: shape and type of ``like``."""
        return (bias / self.scale[1]).astype(like.dtype).reshape(like.shape)

    def pick(self, shape: Sequence[int], kernel: Sequence[int], rows: int, rng: np.random.Generator) -> Picked:
        """About ``rows`` rows of one batch of that shape: positions of a convolution's output, or rows of a matrix product."""
        if self.node.view.op in CONVOLUTIONS:
            geometry = Geometry.of(self.node.view, shape[2:], kernel[2:])
            places = _drawn(math.prod(geometry.out), max(1, round(rows / max(shape[0], 1))), rng)
            return Picked(places, geometry.taps(places))
        names, sizes = self._letters(shape, self._data_axes)
        return Picked(_drawn(math.prod(sizes[name] for name in names if self._role(name) == "row"), rows, rng), None)

    def feature_positions(self, axis: int, belong: Positions) -> Positions:
        """What the features belong to, from what the positions of one axis of the input belong to. [groups, features]"""
        spelled = self._data_axes
        letters = [[name for name in _names(along) if self._role(name) != "row"] for along in spelled]
        shape = [1] * len(spelled)
        shape[axis] = -1
        values = np.broadcast_to(belong.reshape(shape), [math.prod(self.sizes[name] for name in names) for names in letters])
        if self.node.view.op in CONVOLUTIONS:
            values, spelled = np.repeat(values.reshape(1, -1, 1, 1), self.taps, 3), (*spelled[:2], ANONYMOUS, TAP)
        found: Array = self._arrange(values, spelled, ("group", "row", "feature"))[:, 0]
        return found

    def cut(self, counts: Mapping[Factor, int]) -> Reader:
        """The same reader in a pruned graph, where each factor keeps that many positions."""
        return replace(self, sizes={letter: length(factor, counts) for letter, factor in self.node.letters.items()})

    @property
    def groups(self) -> int:
        """How many groups the operator keeps apart."""
        return math.prod(self.sizes[letter] for letter, role in self.roles.items() if role == "group")

    @property
    def features(self) -> int:
        """How many features each group has."""
        return self.taps * math.prod(self.sizes[letter] for letter, role in self.roles.items() if role == "feature")

    @property
    def feature_axes(self) -> list[int]:
        """The axes of the input that hold the features."""
        axes = enumerate(self._data_axes)
        return [at for at, axis in axes if any(self._role(name) == "feature" for name in _names(axis))]

    @property
    def taps(self) -> int:
        """Kernel taps; 1 for a product."""
        return math.prod(self.node.view.shape(self._positions[1])[2:]) if self.node.view.op in CONVOLUTIONS else 1

    @property
    def _data_axes(self) -> tuple[str | Axis, ...]:
        return self.node.equation.spelling[0][self._positions[0]]

    def _weight_axes(self, w: Array) -> tuple[Array, tuple[str | Axis, ...]]:
        """The weight with its taps along one axis, and without axes that only broadcast."""
        spelled = self.node.equation.spelling[0][self._positions[1]]
        if self.node.view.op in CONVOLUTIONS:
            return w.reshape(*w.shape[:2], -1), (*spelled[:2], TAP)
        named = [at for at, axis in enumerate(spelled) if _names(axis)]
        return w.reshape([w.shape[at] for at in named]), tuple(spelled[at] for at in named)

    def _role(self, letter: str) -> str:
        """What a letter is; an axis without a letter is one of rows."""
        return "feature" if letter == TAP else self.roles.get(letter, "row")

    def _letters(self, shape: Sequence[int], spelled: Sequence[str | Axis]) -> tuple[list[str], dict[str, int]]:
        """The letters of a tensor in order and their sizes; an axis without one is named after its place."""
        names: list[str] = []
        sizes: dict[str, int] = {}
        for at, axis in enumerate(spelled):
            mine = _names(axis) or [f"axis{at}"]
            names.extend(mine)
            sizes |= {mine[0]: shape[at]} if len(mine) == 1 else {name: self.sizes[name] for name in mine}
        return names, sizes

    def _order(self, names: Sequence[str], roles: Sequence[str]) -> list[str]:
        """Letters by role, then by name: the same order for every tensor of the node."""
        return [name for role in roles for name in sorted(names) if self._role(name) == role]

    def _arrange(self, array: Array, spelled: Sequence[str | Axis], roles: Sequence[str]) -> Array:
        """A tensor with one axis for each role."""
        names, sizes = self._letters(array.shape, spelled)
        order = self._order(names, roles)
        moved = array.reshape([sizes[name] for name in names]).transpose([names.index(name) for name in order])
        return moved.reshape([math.prod(sizes[name] for name in order if self._role(name) == role) for role in roles])


@dataclass(frozen=True, slots=True)
class Picked:
    """Rows of one batch.

    Attributes:
        places: flat output positions of a convolution, or rows of a product.
        taps: for a convolution, for each place the flat input position that each tap reads, the number of input positions where
            it reads padding. [places, taps]
    """

    places: Positions
    taps: Positions | None


def _names(axis: str | Axis) -> list[str]:
    if isinstance(axis, str):
        return [] if axis == ANONYMOUS else [axis]
    return [name for block in axis for name in block if name != ANONYMOUS]


def _drawn(total: int, count: int, rng: np.random.Generator) -> Positions:
    return np.arange(total) if count >= total else np.sort(rng.choice(total, count, replace=False))


def outer_consumers(model: Model) -> Consumers:
    """For each value the nodes that read it, with the input position, which is -1 wherever a body of control flow reads."""
    outer = {name for node in model.graph.node for name in node.output}
    return {
        value: [(node, -1 if outer.isdisjoint(node.output) else at) for node, at in readers]
        for value, readers in model.consumers().items()
    }


def linear_readers(model: Model, coupling: Coupling) -> list[Reader]:
    """Every linear reader of a graph, in its order: one activation, one constant matrix that nothing else reads.

    Bodies of control flow have none: what they compute cannot be looked at from outside.
    """
    consumers = outer_consumers(model)
    found = (_reader(model, node, consumers) for node in coupling.nodes if not node.inside)
    return [reader for reader in found if reader is not None]


def _reader(model: Model, node: NodeAxes, consumers: Consumers) -> Reader | None:
    view = node.view
    if view.op not in CONVOLUTIONS | PRODUCTS or len(view.inputs) < 2:
        return None
    data, weight = view.inputs[:2]
    if data in model.weights:
        data, weight = weight, data
    if data in model.weights or weight not in model.weights or len(consumers[weight]) > 1 or not model.weights[weight].is_float:
        return None
    roles = _roles(node, list(view.inputs).index(data), list(view.inputs).index(weight))
    scale = (float(view.attr("alpha", 1.0)), float(view.attr("beta", 1.0)))
    if roles is None or "feature" not in roles.values() or 0 in scale:
        return None
    bias, output, can_add = _bias(model, node, roles, consumers, columns=data == view.inputs[0])
    if bias is None:
        return None
    norm = norm_behind(model, view, bias, consumers) if view.op in CONVOLUTIONS else None
    if norm:
        return Reader(node, data, weight, norm.shift, norm.output, False, roles, node.sizes, (scale[0], 1.0), norm)
    return Reader(node, data, weight, bias, output, can_add, roles, node.sizes, scale)


def _bias(
    model: Model, node: NodeAxes, roles: Mapping[str, str], consumers: Consumers, *, columns: bool
) -> tuple[str | None, str, bool]:
    """The constant added to the product, ``None`` if what is added is not one; where the sum is; whether one can be added.

    ``columns``: whether outputs are the last axis of a `Gemm`, along which its bias runs.
    """
    view, output = node.view, node.view.outputs[0]
    outer = [name for name, role in roles.items() if role == "output"]
    width = math.prod(node.sizes[name] for name, role in roles.items() if role in {"output", "group"})

    def vector(name: str) -> bool:
        found = model.weights.get(name)
        return found is not None and found.size == width and found.shape[-1:] == (width,) and len(consumers[name]) == 1

    if view.op in {"Conv", "ConvTranspose", "Gemm"}:
        given, along = view.inputs[2] if view.has(2) else "", columns or view.op != "Gemm"
        return (given if not given or (along and vector(given)) else None), output, along and not given
    readers, spelled = consumers.get(output, []), node.equation.spelling[1][0]
    last = _names(spelled[-1]) if spelled else []
    if [(add.op_type, at < 0) for add, at in readers] == [("Add", False)] and last == outer and "group" not in roles.values():
        add = readers[0][0]
        other = add.input[1] if add.input[0] == output else add.input[0]
        graph_outputs = {value.name for value in model.graph.output}
        if vector(other) and len(model.weights[other].shape) <= len(spelled) and output not in graph_outputs:
            return other, add.output[0], False
    return "", output, False


def _roles(node: NodeAxes, data: int, weight: int) -> dict[str, str] | None:
    """What each letter is, by the tensors that carry it; ``None`` where something is summed over on one side alone."""
    inputs, outputs = node.equation.spelling
    x, w, y = ({name for axis in tensor for name in _names(axis)} for tensor in (inputs[data], inputs[weight], outputs[0]))
    if (x ^ w) - y:
        return None
    both = {name: "group" if name in y else "feature" for name in x & w}
    return {name: both.get(name, "output" if name in w else "row") for name in sorted(x | w | y)}


def positions_read(reader: Reader, coupling: Coupling, factor: Factor) -> Positions | None:
    """For each feature of a reader the position of a group that it belongs to, -1 for none; ``None`` if none belongs.
    [groups, features]
    """
    for axis in reader.feature_axes:
        found = labels(coupling.axes[reader.data][axis], factor)
        if (found >= 0).any():
            return reader.feature_positions(axis, found)
    return None


def matrix_of(reader: Reader, model: Model) -> Array:
    """The weights of a reader in some graph, with the bias as last feature where it is affine.
    float64 [groups, features (+ 1), outputs]
    """
    matrix = reader.matrix(model.weights[reader.weight].array().astype(np.float64))
    if not reader.affine:
        return matrix
    width = matrix.shape[2]
    if reader.norm:
        matrix = matrix * reader.norm.gain(model).reshape(len(matrix), 1, width)
        bias = reader.norm.folded(model).reshape(len(matrix), width)
    else:
        bias = reader.bias_matrix(model.weights[reader.bias].array()) if reader.bias else np.zeros((len(matrix), width))
    return np.concatenate([matrix, bias.astype(np.float64)[:, None]], 1)


def install(model: Model, reader: Reader, matrix: Array) -> None:
    """Give a reader the weights that `matrix_of` would return, and a bias where it lacks one that it may have.

    A batch normalisation behind it does no more than add the bias from then on.
    """
    like = model.weights[reader.weight].array()
    model.weights[reader.weight] = Weight(reader.weight, None, reader.weight_of(matrix[:, : reader.features], like))
    if not reader.affine:
        return
    if reader.norm:
        reader.norm.pass_on(model)
    bias = matrix[:, reader.features]
    name = reader.bias or model.fresh_name(f"{reader.weight}__bias")
    like = model.weights[name].array() if reader.bias else np.zeros(bias.size, like.dtype)
    model.weights[name] = Weight(name, None, reader.bias_of(bias, like))
    if not reader.bias:
        inputs = model.graph.node[reader.node.index].input
        del inputs[2:]
        inputs.append(name)
