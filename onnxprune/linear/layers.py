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

from onnxprune.axes.equation import Axis
from onnxprune.axes.factors import length
from onnxprune.axes.graph_axes import BATCHED_PRODUCTS
from onnxprune.ir.weights import Array, Weight
from onnxprune.linear.batchnorm import Consumers, FoldableNorm, norm_behind
from onnxprune.linear.roles import TAP, Roles, named_letters

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Factor
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model

__all__ = [
    "FLOAT_CONVOLUTIONS",
    "MATRIX_PRODUCTS",
    "Reader",
    "install",
    "is_subnormal",
    "linear_readers",
    "matrix_of",
    "outer_consumers",
    "weight_products",
]

FLOAT_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
"""The convolutions whose weights are floats and that compute nothing else: their weights can be written anew."""
MATRIX_PRODUCTS = BATCHED_PRODUCTS | {"Gemm"}
_MATRIX = ("group", "feature", "output")
_LEAST = float(np.finfo(np.float32).tiny)
"""The least normal number of float32."""


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
        roles: of the letters.
        scale: what the product, and the bias, are multiplied by in the node.
        norm: the batch normalisation behind, which then has the bias.
    """

    node: NodeAxes
    data: str
    weight: str
    bias: str
    output: str
    can_add_bias: bool
    roles: Roles = field(repr=False)
    scale: tuple[float, float] = (1.0, 1.0)
    norm: FoldableNorm | None = None

    @property
    def name(self) -> str:
        """The name of the node."""
        return self.node.view.name

    @property
    def affine(self) -> bool:
        """Whether there is, or may be, a bias."""
        return bool(self.bias) or self.can_add_bias

    @property
    def constants(self) -> tuple[str, ...]:
        """The constants that `install` writes, except a bias that is not there yet."""
        norm = (self.norm.scale, self.norm.shift, self.norm.mean, self.norm.variance, self.norm.bias) if self.norm else ()
        return tuple(filter(None, (self.weight, self.bias, *norm)))

    @property
    def is_convolution(self) -> bool:
        """Say whether kernel taps count among the features."""
        return self.node.view.op in FLOAT_CONVOLUTIONS

    @property
    def groups(self) -> int:
        """The number of groups that the operator keeps apart."""
        return self.roles.size("group")

    @property
    def features(self) -> int:
        """The number of features of each group."""
        return self.taps * self.roles.size("feature")

    @property
    def taps(self) -> int:
        """The number of kernel taps; 1 for a product."""
        return math.prod(self.node.view.shape(self._position(self.weight))[2:]) if self.is_convolution else 1

    @property
    def data_axes(self) -> tuple[str | Axis, ...]:
        """The axes of the data in the letters of the node."""
        return self.node.equation.spelling[0][self._position(self.data)]

    @property
    def feature_axes(self) -> list[int]:
        """The axes of the data that hold the features."""
        axes = enumerate(self.data_axes)
        return [at for at, axis in axes if any(self.roles.role(name) == "feature" for name in named_letters(axis))]

    def matrix(self, w: Array) -> Array:
        """The weight as a matrix, multiplied as the node does. [groups, features, outputs]

        ``Gemm<transB = 1, alpha = 2>`` with the weight ``[[1, 3, 5]]`` is the matrix ``[[[2], [6], [10]]]``.
        """
        shape, spelled = self._weight_axes(w.shape)
        return self.roles.arrange(w.reshape(shape), spelled, _MATRIX) * self.scale[0]

    def weight_of(self, matrix: Array, like: Array) -> Array:
        """A matrix [groups, features, outputs] as the node holds it: shape and type of ``like``."""
        restored = self.roles.restore(matrix / self.scale[0], *self._weight_axes(like.shape), _MATRIX)
        return restored.reshape(like.shape).astype(like.dtype)

    def bias_matrix(self, b: Array) -> Array:
        """The bias, multiplied as the node does. [groups, outputs]"""
        return b.reshape(self.groups, -1) * self.scale[1]

    def bias_of(self, bias: Array, like: Array) -> Array:
        """A bias [groups, outputs] as the node holds it: shape and type of ``like``."""
        return (bias / self.scale[1]).astype(like.dtype).reshape(like.shape)

    def cut(self, counts: Mapping[Factor, int]) -> Reader:
        """The same reader in a pruned graph, where each factor keeps that many positions."""
        sizes = {letter: length(factor, counts) for letter, factor in self.node.letters.items()}
        return replace(self, roles=replace(self.roles, sizes=sizes))

    def _position(self, value: str) -> int:
        return list(self.node.view.inputs).index(value)

    def _weight_axes(self, shape: Sequence[int]) -> tuple[list[int], tuple[str | Axis, ...]]:
        """The shape of the weight with its taps along one axis, and without axes that only broadcast; and the letters."""
        spelled = self.node.equation.spelling[0][self._position(self.weight)]
        if self.is_convolution:
            return [*shape[:2], math.prod(shape[2:])], (*spelled[:2], TAP)
        named = [at for at, axis in enumerate(spelled) if named_letters(axis)]
        return [shape[at] for at in named], tuple(spelled[at] for at in named)


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


def weight_products(model: Model, coupling: Coupling) -> dict[str, list[Reader]]:
    """For each constant matrix the nodes that multiply an activation by it, in bodies too, in their order.

    Unlike those of `linear_readers` they may share the matrix. Nothing is known of their biases: `Reader.matrix` is what counts.
    """
    found: dict[str, list[Reader]] = {}
    for node in coupling.nodes:
        product = _product(model, node)
        if product is not None:
            found.setdefault(product.weight, []).append(product)
    return found


def _product(model: Model, node: NodeAxes) -> Reader | None:
    """A node as the product of an activation and a constant matrix, without a bias."""
    view = node.view
    if view.op not in FLOAT_CONVOLUTIONS | MATRIX_PRODUCTS or len(view.inputs) < 2:
        return None
    data, weight = view.inputs[:2]
    if data in model.weights:
        data, weight = weight, data
    if data in model.weights or weight not in model.weights or not model.weights[weight].is_float:
        return None
    roles = Roles.find(node, list(view.inputs).index(data), list(view.inputs).index(weight))
    scale = (float(view.attr("alpha", 1.0)), float(view.attr("beta", 1.0)))
    if roles is None or "feature" not in roles.of.values() or 0 in scale:
        return None
    return Reader(node, data, weight, "", view.outputs[0], False, roles, scale)


def _reader(model: Model, node: NodeAxes, consumers: Consumers) -> Reader | None:
    found, view = _product(model, node), node.view
    if found is None or len(consumers[found.weight]) > 1:
        return None
    bias, output, can_add = _bias(model, node, found.roles, consumers, columns=found.data == view.inputs[0])
    if bias is None:
        return None
    norm = norm_behind(model, view, bias, consumers) if view.op in FLOAT_CONVOLUTIONS else None
    if norm:
        return replace(found, bias=norm.shift, output=norm.output, scale=(found.scale[0], 1.0), norm=norm)
    return replace(found, bias=bias, output=output, can_add_bias=can_add)


def _bias(model: Model, node: NodeAxes, roles: Roles, consumers: Consumers, *, columns: bool) -> tuple[str | None, str, bool]:
    """The constant added to the product, ``None`` if what is added is not one; where the sum is; whether one can be added.

    ``columns``: whether outputs are the last axis of a `Gemm`, along which its bias runs.
    """
    view, output = node.view, node.view.outputs[0]
    outer = [name for name, role in roles.of.items() if role == "output"]
    width = math.prod(node.sizes[name] for name, role in roles.of.items() if role in {"output", "group"})

    def vector(name: str) -> bool:
        found = model.weights.get(name)
        return found is not None and found.size == width and found.shape[-1:] == (width,) and len(consumers[name]) == 1

    if view.op in {"Conv", "ConvTranspose", "Gemm"}:
        given, along = view.inputs[2] if view.has(2) else "", columns or view.op != "Gemm"
        return (given if not given or (along and vector(given)) else None), output, along and not given
    readers, spelled = consumers.get(output, []), node.equation.spelling[1][0]
    last = named_letters(spelled[-1]) if spelled else []
    if [(add.op_type, at < 0) for add, at in readers] == [("Add", False)] and last == outer and "group" not in roles.of.values():
        add = readers[0][0]
        other = add.input[1] if add.input[0] == output else add.input[0]
        graph_outputs = {value.name for value in model.graph.output}
        if vector(other) and len(model.weights[other].shape) <= len(spelled) and output not in graph_outputs:
            return other, add.output[0], False
    return "", output, False


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


def is_subnormal(values: Array) -> Array:
    """Which of some numbers float32 only has as subnormal ones, which processors compute with many times as slowly."""
    size = np.abs(values)
    return (size > 0) & (size < _LEAST)


def install(model: Model, reader: Reader, matrix: Array) -> None:
    """Give a reader the weights that `matrix_of` would return, and a bias where it lacks one that it may have.

    A batch normalisation behind it only adds the bias from then on. Subnormal numbers become zero: with one channel of them,
    which a repair had brought there, a convolution took 17 times as long.
    """
    matrix = np.where(is_subnormal(matrix), 0, matrix)
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
