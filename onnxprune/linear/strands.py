"""Strands: the places where a group runs through a tensor, and the tensor as blocks along one of them.

Worked example: a tensor [2, 12] with the axes ``b, (h d+h d)``, queries beside keys, has two strands of the width ``d``: for each
index of its second axis the position of ``d`` there is ``0 1 2 0 1 2 - - - - - -`` along the first and
``- - - - - - 0 1 2 0 1 2`` along the second. With the companion ``h`` the blocks of either strand are [2 heads, 3 positions, 2].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import LEAF, PERMUTED, SUM, Factor, Positions, labels, leaves

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["Strand", "StrandView", "strands"]

Strand = tuple[str, int]
"""A value, and which of the places it is where a leaf runs along it: queries and keys may be parts of one tensor."""


class StrandView:
    """A tensor as blocks along one strand of a leaf. [companions, size, others]

    Attributes:
        in_order: whether companions with an axis of their own come before those on the leaf's, as blocks are ordered.
    """

    def __init__(self, factors: Sequence[Factor], leaf: Factor, strand: int, companions: Sequence[Factor]) -> None:
        self._axis, digit = strands(factors, leaf)[strand]
        along = set(leaves(factors[self._axis]))
        which = np.zeros(len(digit), np.int64)
        for companion in companions:
            if companion in along:
                which = which * companion.size + labels(factors[self._axis], companion)
        belong = np.flatnonzero(digit >= 0)
        self._rows = belong[np.lexsort((digit[belong], which[belong]))]
        outer = [companion for companion in companions if companion not in along]
        self.in_order = outer == list(companions[: len(outer)])
        self._front = [next(at for at, factor in enumerate(factors) if factor.root is companion) for companion in outer]
        self._count = math.prod(companion.size for companion in companions)
        self._size = leaf.size

    @property
    def products(self) -> int:
        """The number of products of two positions, for all companions."""
        return self._count * self._size**2

    def blocks(self, array: Array) -> Array:
        """The rows of the strand."""
        return self._moved(array)[:, self._rows].reshape(self._count, self._size, -1)

    def put(self, array: Array, blocks: Array) -> Array:
        """The tensor with other rows there, in its type. Companions lie on the same axis."""
        result = np.moveaxis(array, self._axis, 0).copy()
        result[self._rows] = blocks.reshape(len(self._rows), *result.shape[1:])
        return np.ascontiguousarray(np.moveaxis(result, 0, self._axis))

    def _moved(self, array: Array) -> Array:
        """[companions that have an axis of their own, positions along the leaf's axis, others]"""
        front = [*self._front, self._axis]
        outer = math.prod(array.shape[at] for at in self._front)
        return np.moveaxis(array, front, range(len(front))).reshape(outer, array.shape[self._axis], -1)


def strands(factors: Sequence[Factor], leaf: Factor) -> list[tuple[int, Positions]]:
    """Every place of a leaf in a tensor: the axis, and for each index there the position of the leaf, -1 for none."""
    return [(axis, digit) for axis, factor in enumerate(factors) for digit in _digits(factor, leaf)]


def _digits(factor: Factor, leaf: Factor) -> list[Positions]:
    """One array for each place of a leaf in a factor, in order; none of those in a product in which it occurs twice."""
    top = factor.root
    if top.kind == LEAF:
        return [np.arange(top.size)] if top is leaf else []
    found = [_digits(part, leaf) for part in top.parts]
    if top.kind == PERMUTED:
        return [digit[top.order] for digit in found[0]]
    if top.kind == SUM:
        ends = np.cumsum([part.size for part in top.parts])
        pads = [(int(end) - part.size, top.size - int(end)) for end, part in zip(ends, top.parts, strict=True)]
        return [np.pad(digit, pad, constant_values=-1) for digits, pad in zip(found, pads, strict=True) for digit in digits]
    inside = [at for at, digits in enumerate(found) if digits]
    if len(inside) != 1:
        return []
    before = math.prod(part.size for part in top.parts[: inside[0]])
    after = math.prod(part.size for part in top.parts[inside[0] + 1 :])
    return [np.tile(np.repeat(digit, after), before) for digit in found[inside[0]]]
