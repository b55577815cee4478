"""Nodes that multiply activations by a constant matrix and add a bias: the readers whose weights a rewrite can change.

Seen through `Affine`, every one of them is ``y[g, o] = bias[g, o] + sum of matrix[g, o, i, k] x[g, i]`` over ``i`` and the kernel
positions ``k``: convolutions with ``g`` groups, matrix products with one group and one kernel position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxprune.axes.equation import Block
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.weights import Array, Weight
    from onnxprune.pruning.lossless.hashing import Digests

__all__ = ["Affine", "affine", "merged"]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A node as a constant matrix.

    Attributes:
        data: which input is multiplied.
        weight: which input is the matrix.
        bias: which input is the bias, present or not; -1 where the operator has none.
        inner: the letters of the data's axis that is summed over, the group first.
        outer: the letters of the output's axis, the group first.
        out_axis: the axis of the output that ``outer`` spells.
        view: the constant as ``[g, o, i, k]``, a view of it.
        padded: whether zeros from outside the data enter some of the sums.
        scales: factors of the products and of the bias.
    """

    node: NodeAxes
    data: int
    weight: int
    bias: int
    inner: Block
    outer: Block
    out_axis: int
    view: Callable[[Array], Array]
    layout: tuple[object, ...]
    """Nodes of one layout see the same constant as the same matrix."""
    padded: bool = False
    scales: tuple[float, float] = (1.0, 1.0)

    @property
    def matrix(self) -> str:
        """The name of the constant."""
        return self.node.view.inputs[self.weight]

    @property
    def contracted(self) -> str:
        """The letter that is summed over."""
        return self.inner[-1]

    @property
    def groups(self) -> int:
        return math.prod(self.node.sizes[letter] for letter in self.outer[:-1])


def affine(node: NodeAxes, weights: Mapping[str, Weight]) -> Affine | None:
    """The node as a constant matrix; ``None`` if it is no such node."""
    view = node.view
    if view.domain or view.op not in _FORMS:
        return None
    constant = [view.has(at) and view.inputs[at] in weights and weights[view.inputs[at]].is_float for at in (0, 1)]
    return _FORMS[view.op](node) if constant == [False, True] else _left(node) if constant == [True, False] else None


def merged(matrix: Array, digest: Digests) -> Array:
    """The matrix [g, o, i, k] with columns whose data are equal, by their digests [g, i], added up in the first of them."""
    result = matrix
    for group, names in enumerate(digest):
        first, which = np.unique(names, return_index=True, return_inverse=True)[1:]
        target = first[which.reshape(-1)]
        others = np.flatnonzero(target != np.arange(len(names)))
        if not len(others):
            continue
        result = matrix.copy() if result is matrix else result
        np.add.at(np.moveaxis(result[group], 1, 0), target[others], np.moveaxis(matrix[group][:, others], 1, 0))
        result[group][:, others] = 0
    return result


def _conv(node: NodeAxes) -> Affine:
    shape, groups = node.view.shape(1), node.sizes["g"]
    if node.view.op == "ConvTranspose":  # every output sums some of the kernel positions: as if the others met zeros
        view, padded = partial(_transposed, groups=groups), True
    else:
        view, padded = partial(_grouped, groups=groups), _pads(node)
    layout = (node.view.op, groups, shape)
    return Affine(node, 0, 1, 2, ("g", "i"), ("g", "o"), 1, view, layout, padded)


def _pads(node: NodeAxes) -> bool:
    if all(size == 1 for size in node.view.shape(1)[2:]) and node.view.attr("auto_pad", "NOTSET") != "NOTSET":
        return False
    return any(node.view.attr("pads", ())) or node.view.attr("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}


def _gemm(node: NodeAxes) -> Affine:
    by_row = bool(node.view.attr("transB", 0))
    scales = (float(node.view.attr("alpha", 1.0)), float(node.view.attr("beta", 1.0)))
    return Affine(node, 0, 1, 2, ("k",), ("n",), 1, _rows if by_row else _columns, (by_row,), scales=scales)


def _matmul(node: NodeAxes) -> Affine | None:
    if len(node.view.shape(1)) != 2:
        return None
    return Affine(node, 0, 1, -1, ("k",), ("n",), len(node.view.out()) - 1, _columns, (False,))


def _left(node: NodeAxes) -> Affine | None:
    """``matrix @ x``: sums over the rows of the data."""
    if node.view.op != "MatMul" or len(node.view.shape(0)) != 2 or len(node.view.shape(1)) < 2:
        return None
    return Affine(node, 1, 0, -1, ("k",), ("m",), len(node.view.out()) - 2, _rows, (True,))


_FORMS: dict[str, Callable[[NodeAxes], Affine | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _grouped(array: Array, groups: int) -> Array:
    return array.reshape(groups, len(array) // groups, array.shape[1], -1)


def _transposed(array: Array, groups: int) -> Array:
    return np.swapaxes(array.reshape(groups, len(array) // groups, array.shape[1], -1), 1, 2)


def _rows(array: Array) -> Array:
    return array[None, :, :, None]


def _columns(array: Array) -> Array:
    return array.T[None, :, :, None]
