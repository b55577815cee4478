"""Index sets: factors, products, direct sums, permutations, index maps.

A **factor** is an index set of known size. It is free (a *leaf*), or it has been found to be an ordered mixed-radix
**product** of factors, major first, a direct **sum** of factors, in order, or a **permutation** of another. An axis of a tensor
is one factor; flattening makes products, concatenation makes sums, a list of positions permutes. `onnxprune.axes.unification`
finds out which factors are the same; the classes of leaves that remain are what a whole network prunes together.

Nothing here knows about ONNX. In the examples a factor is printed by its leaves: ``(3 4)`` is a product, ``(4+6)`` a sum, ``4!``
is fixed, ``(4+6)@`` is permuted.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxprune.ir.weights import Array

__all__ = [
    "Factor",
    "Indices",
    "Keeper",
    "direct_sum",
    "fix",
    "index",
    "labels",
    "leaves",
    "length",
    "mask_outside",
    "mix",
    "permuted",
    "product",
    "stride",
    "take",
]

Positions = npt.NDArray[np.int64]
Indices = tuple[Positions | None, ...]
"""The indices that remain along each axis of a tensor; ``None`` stands for all of them."""

LEAF, PRODUCT, SUM, PERMUTED = "", "*", "+", "@"
_JOINS = itertools.count(1)


class Factor:
    """An index set of ``size`` positions.

    Attributes:
        size: number of positions, at least 0.
        fixed: why no position may be removed; ``None`` while the factor is free.
        mixed: why removing positions is not the same as zeroing them (statistics run over it); ``None`` if it is.
    """

    __slots__ = ("_flat_at", "_order", "_parts", "_spans", "_spans_at", "_to", "fixed", "kind", "mixed", "size")
    _joined: ClassVar[int] = 0  # changes whenever any two classes are joined: parts that were flat then are flat until it does

    def __init__(self, size: int, *, fixed: object = None) -> None:
        self.size = size
        self.kind = LEAF
        self.fixed: object = fixed
        self.mixed: object = None
        self._parts: tuple[Factor, ...] = ()
        self._order: Positions | None = None
        self._to: Factor | None = None
        self._flat_at = self._spans_at = -1
        self._spans: dict[Factor, list[tuple[int, Factor]]] = {}

    @property
    def root(self) -> Factor:
        """The representative of this factor's class (with path compression)."""
        top = self
        while top._to is not None:
            top = top._to
        node = self
        while node._to is not None:
            node._to, node = top, node._to
        return top

    @property
    def parts(self) -> tuple[Factor, ...]:
        """The parts of a root, each a root of another kind than this one: what is nested is flattened.

        A permutation has one part.
        """
        if self._flat_at == Factor._joined:
            return self._parts
        stack, flat, changed = list(reversed(self._parts)), [], False
        while stack:
            part = stack.pop()
            top = part.root
            changed |= top is not part
            if top.kind == self.kind:
                if top._order is not None:
                    self._order = top._order[self.order]
                stack.extend(reversed(top._parts))
                changed = True
            else:
                flat.append(top)
        if changed:
            self._parts = tuple(flat)
        self._flat_at = Factor._joined
        return self._parts

    @property
    def order(self) -> Positions:
        """For each position of a permutation the position of its part that it is; up to date where the part is."""
        assert self._order is not None  # noqa: S101 - asked of permutations alone
        return self._order

    def join(self, other: Factor) -> None:
        """Let the class of this root be that of another."""
        self._to = other
        Factor._joined = next(_JOINS)

    @property
    def spans(self) -> Mapping[Factor, Sequence[tuple[int, Factor]]]:
        """For each leaf of a root the terms that it is in, each with the position where it begins; what is no sum is one term.

        They are remembered, as the parts are: a sum of many terms is asked about each of its leaves.
        """
        if self._spans_at != Factor._joined:
            found: dict[Factor, list[tuple[int, Factor]]] = {}
            at = 0
            for part in self.parts if self.kind == SUM else (self,):
                for leaf in (part,) if part.kind == LEAF else dict.fromkeys(leaves(part)):
                    found.setdefault(leaf, []).append((at, part))
                at += part.size
            self._spans, self._spans_at = found, Factor._joined
        return self._spans

    def __repr__(self) -> str:
        top = self.root
        if top.kind == LEAF:
            return f"{top.size}{'!' if top.fixed else ''}"
        if top.kind == PERMUTED:
            return f"{top.parts[0]!r}@"
        joint = " " if top.kind == PRODUCT else "+"
        return f"({joint.join(map(repr, top.parts))})"


def product(factors: Iterable[Factor]) -> Factor:
    """The mixed-radix product of ``factors``, major first; units vanish, and the product of one factor is that factor."""
    parts = tuple(f for f in factors if f.size != 1)
    if len(parts) == 1:
        return parts[0]
    result = Factor(math.prod(f.size for f in parts))
    if parts:
        result.kind, result._parts = PRODUCT, parts
    return result


def direct_sum(factors: Iterable[Factor]) -> Factor:
    """The direct sum of ``factors``, in order; empty ones vanish, and the sum of one factor is that factor."""
    parts = tuple(f for f in factors if f.size != 0)
    if len(parts) == 1:
        return parts[0]
    result = Factor(sum(f.size for f in parts))
    if parts:
        result.kind, result._parts = SUM, parts
    return result


def permuted(factor: Factor, order: Positions) -> Factor:
    """The factor whose position ``p`` is position ``order[p]`` of another; that factor itself where the order is its own."""
    if np.array_equal(order, np.arange(factor.size)):
        return factor
    result = Factor(factor.size)
    result.kind, result._parts, result._order = PERMUTED, (factor,), order
    return result


def leaves(factor: Factor) -> list[Factor]:
    """The leaf roots below ``factor``, in order; a leaf that occurs twice is listed twice."""
    stack, found = [factor.root], []
    while stack:
        top = stack.pop()
        if top.kind == LEAF:
            found.append(top)
        else:
            stack.extend(reversed(top.parts))
    return found


def fix(factor: Factor, why: object) -> None:
    """No position of ``factor`` may be removed; the first reason given to a leaf is kept."""
    for leaf in leaves(factor):
        leaf.fixed = leaf.fixed or why


def mix(factor: Factor, why: object) -> None:
    """Statistics or normalisation run over ``factor``: removing positions is not equal to zeroing them."""
    for leaf in leaves(factor):
        leaf.mixed = leaf.mixed or why


def length(factor: Factor, sizes: Mapping[Factor, int]) -> int:
    """Count the positions of ``factor`` when each leaf root in ``sizes`` has that many (others: all of theirs).

    >>> channels, pixels = Factor(3), Factor(2)
    >>> length(product((channels, pixels)), {channels: 2}), length(direct_sum((channels, pixels)), {channels: 2})
    (4, 4)
    """
    top = factor.root
    if top.kind == LEAF:
        return sizes.get(top, top.size)
    parts = [sizes.get(part, part.size) if part.kind == LEAF else length(part, sizes) for part in top.parts]
    return math.prod(parts) if top.kind == PRODUCT else sum(parts)


def stride(factor: Factor, leaf: Factor) -> int:
    """Count the positions of ``factor`` that go with the first position of ``leaf`` to go.

    >>> channels, pixels = Factor(3), Factor(2)
    >>> stride(product((channels, pixels)), channels), stride(direct_sum((channels, pixels)), channels)
    (2, 1)
    """
    terms = (part for _, part in factor.root.spans.get(leaf, ()))
    return sum(1 if term is leaf else term.size - length(term, {leaf: leaf.size - 1}) for term in terms)


def index(factor: Factor, keep: Mapping[Factor, Positions]) -> Positions:
    """The positions of ``factor`` that remain when each leaf root in ``keep`` keeps those positions (others: all).

    A sum is a running offset, a product a mixed radix, a permutation a list; that covers concatenation offsets, flatten strides,
    heads, groups of a convolution, pixel shuffles and lists of channels. Returns int64 [length], ascending.

    >>> channels, pixels = Factor(3), Factor(2)
    >>> keep = {channels: np.array([0, 2])}
    >>> index(product((channels, pixels)), keep).tolist()  # flattened: channel * 2 + pixel
    [0, 1, 4, 5]
    >>> index(direct_sum((Factor(10), channels)), keep)[10:].tolist()  # concatenated: 10 + channel
    [10, 12]
    """
    top = factor.root
    if top.kind == LEAF:
        return keep.get(top, np.arange(top.size))
    if top.kind == SUM:
        offsets = np.cumsum([0, *(part.size for part in top.parts)])
        return np.concatenate([o + index(part, keep) for o, part in zip(offsets, top.parts, strict=False)])
    if top.kind == PERMUTED:
        stays = np.zeros(top.size, bool)
        stays[index(top.parts[0], keep)] = True
        return np.flatnonzero(stays[top.order])
    positions = np.zeros(1, np.int64)
    for part in top.parts:
        positions = (positions[:, None] * part.size + index(part, keep)[None, :]).reshape(-1)
    return positions


def labels(factor: Factor, leaf: Factor) -> Positions:
    """For each position of ``factor`` the position of ``leaf`` that it belongs to, -1 where it belongs to none.

    Where the leaf occurs as two digits of one product the major digit counts. Returns int64 [factor.size].

    >>> channels, pixels = Factor(3), Factor(2)
    >>> labels(product((channels, pixels)), channels).tolist(), labels(direct_sum((pixels, channels)), channels).tolist()
    ([0, 0, 1, 1, 2, 2], [-1, -1, 0, 1, 2])
    """
    top = factor.root
    if top is leaf:
        return np.arange(top.size)
    if top.kind == LEAF:
        return np.full(top.size, -1)
    if top.kind == PERMUTED:
        of_part = labels(top.parts[0], leaf)  # asked first: it brings the order up to date
        return of_part[top.order]
    result, inner = np.full(top.size, -1), top.size
    if top.kind == SUM:
        for at, part in top.spans.get(leaf, ()):
            result[at : at + part.size] = labels(part, leaf)
        return result
    parts: Sequence[Positions] = [labels(part, leaf) for part in top.parts]
    for part, digit in zip(top.parts, parts, strict=True):
        inner //= part.size
        spread = np.tile(np.repeat(digit, inner), top.size // (part.size * inner))
        result = np.where(result >= 0, result, spread)
    return result


class Keeper:
    """Turns the axes of a tensor into the indices that remain along each, for one choice of kept positions.

    Axes that share a factor share the work: results are remembered.
    """

    def __init__(self, keep: Mapping[Factor, Positions]) -> None:
        self._keep = keep
        self._found: dict[Factor, Positions | None] = {}

    def __call__(self, axes: Iterable[Factor]) -> Indices:
        return tuple([self._along(axis.root) for axis in axes])

    def _along(self, root: Factor) -> Positions | None:
        if root not in self._found:
            positions = index(root, self._keep)
            self._found[root] = None if len(positions) == root.size else positions
        return self._found[root]


def take(array: Array, indices: Indices) -> Array:
    """The part of an array at the given indices of each axis; ``None`` is a whole axis."""
    for axis, positions in enumerate(indices):
        if positions is not None:
            array = np.take(array, positions, axis, mode="clip")  # indices are valid: unchecked, this is half as fast again
    return array


def mask_outside(array: Array, indices: Indices, fill: Array | None = None) -> Array:
    """A copy of an array with zeros outside the given indices of each axis; ``None`` is a whole axis.

    ``fill`` stands in for zero; it broadcasts against the array.
    """
    result = array.copy()
    zeros = np.broadcast_to(np.zeros((), array.dtype) if fill is None else fill.astype(array.dtype), array.shape)
    for axis, positions in enumerate(indices):
        if positions is not None:
            removed = np.ones(array.shape[axis], bool)
            removed[positions] = False
            where = (slice(None),) * axis + (removed,)
            result[where] = zeros[where]
    return result
