"""Index sets and their algebra: factors, products, direct sums, unification, index maps.

A **factor** is an index set of known size. It is free (a *leaf*), or it has been found to be an ordered mixed-radix
**product** of factors, major first, or a direct **sum** of factors, in order. An axis of a tensor is one factor; flattening
makes products, concatenation makes sums. `unify` states that two factors are the same index set and refines both until their
leaves agree; the classes of leaves that remain are what a whole network prunes together.

Unification is a union-find over leaves with structural refinement, iterative and near-linear in the number of statements.
Nothing here knows about ONNX. In the examples a factor is printed by its leaves: ``(3 4)`` is a product, ``(4+6)`` a sum, ``4!``
is fixed.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
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
    "product",
    "take",
    "unify",
]

Positions = npt.NDArray[np.int64]
Indices = tuple[Positions | None, ...]
"""The indices that remain along each axis of a tensor; ``None`` stands for all of them."""

LEAF, PRODUCT, SUM = "", "*", "+"
_JOINS = itertools.count(1)


class Factor:
    """An index set of ``size`` positions.

    Attributes:
        size: number of positions, at least 0.
        fixed: why no position may be removed; ``None`` while the factor is free.
        mixed: why removing positions is not the same as zeroing them (statistics run over it); ``None`` if it is.
    """

    __slots__ = ("_flat_at", "_parts", "_to", "fixed", "kind", "mixed", "size")
    _joined: ClassVar[int] = 0  # changes whenever any two classes are joined: parts that were flat then are flat until it does

    def __init__(self, size: int, *, fixed: object = None) -> None:
        self.size = size
        self.kind = LEAF
        self.fixed: object = fixed
        self.mixed: object = None
        self._parts: tuple[Factor, ...] = ()
        self._to: Factor | None = None
        self._flat_at = -1

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
        """The parts of a root, each a root of another kind than this one: nested sums and products are flattened."""
        if self._flat_at == Factor._joined:
            return self._parts
        stack, flat, changed = list(reversed(self._parts)), [], False
        while stack:
            part = stack.pop()
            top = part.root
            changed |= top is not part
            if top.kind == self.kind:
                stack.extend(reversed(top._parts))
                changed = True
            else:
                flat.append(top)
        if changed:
            self._parts = tuple(flat)
        self._flat_at = Factor._joined
        return self._parts

    def join(self, other: Factor) -> None:
        """Let the class of this root be that of another."""
        self._to = other
        Factor._joined = next(_JOINS)

    def __repr__(self) -> str:
        top = self.root
        if top.kind == LEAF:
            return f"{top.size}{'!' if top.fixed else ''}"
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


def _become(leaf: Factor, other: Factor) -> None:
    """The class of ``leaf`` joins ``other``, of the same size, and hands over its marks."""
    leaf.join(other)
    if leaf.fixed:
        fix(other, leaf.fixed)
    if leaf.mixed:
        mix(other, leaf.mixed)


def unify(a: Factor, b: Factor, why: object) -> None:
    """State that ``a`` and ``b`` are the same index set.

    Afterwards both have the same leaves in the same order, except where no alignment exists: those factors are fixed, with
    the reason ``why``.

    A leaf takes the structure of what it meets, as the flat axis of a reshape does; sums are cut at the union of their
    boundaries, products are aligned by their radices, and products that meet sums are distributed over them:

    >>> flat = Factor(12)
    >>> unify(flat, product((Factor(3), Factor(4))), "a reshape")
    >>> flat
    (3 4)
    >>> joined = direct_sum((Factor(4), Factor(6)))
    >>> unify(joined, direct_sum((Factor(7), Factor(3))), "a split elsewhere")
    >>> joined
    (4+3+3)
    >>> grid = product((Factor(4), Factor(6)))
    >>> unify(grid, product((Factor(8), Factor(3))), "a reshape")
    >>> grid
    (4 2 3)
    >>> clash = product((Factor(4), Factor(6)))
    >>> unify(clash, product((Factor(6), Factor(4))), "a reshape that mixes both axes")
    >>> clash
    (4! 6!)
    >>> heads = product((Factor(10), Factor(3)))
    >>> unify(heads, direct_sum((Factor(12), Factor(18))), "a split into whole heads")
    >>> heads
    ((4+6) 3)

    Raises:
        ValueError: the sizes differ.
    """
    todo = [(a, b)]
    while todo:
        x, y = todo.pop()
        x, y = x.root, y.root
        if x is y:
            continue
        if x.size != y.size:
            msg = f"an index set of {x.size} positions cannot be one of {y.size}"
            raise ValueError(msg)
        if x.size == 1:
            continue
        if x.kind == LEAF:
            _become(x, y)
        elif y.kind == LEAF:
            _become(y, x)
        elif x.kind == y.kind == SUM:
            todo.extend(_cut(x, y))
            x.join(y)
        elif x.kind == y.kind == PRODUCT:
            todo.extend(_align(x, y, why))
        else:
            todo.extend(_expand(x, y, why) if x.kind == PRODUCT else _expand(y, x, why))


def _cut(x: Factor, y: Factor) -> list[tuple[Factor, Factor]]:
    """Sum against sum: cut both at the union of their boundaries, and state which pieces are equal.

    ``4+6`` against ``7+3``: 4 is the head of 7, whose tail of 3 is the head of 6, whose tail of 3 is 3.
    """
    equal: list[tuple[Factor, Factor]] = []
    xs, ys = deque(x.parts), deque(y.parts)
    while xs:
        p, q = xs.popleft(), ys.popleft()
        if p.size < q.size:
            p, q, xs, ys = q, p, ys, xs
        if p.size > q.size:
            head, tail = Factor(q.size), Factor(p.size - q.size)
            equal.append((p, direct_sum((head, tail))))
            xs.appendleft(tail)
            p = head
        equal.append((p, q))
    return equal


def _align(x: Factor, y: Factor, why: object) -> list[tuple[Factor, Factor]]:
    """Product against product: align the radices from the minor end, splitting a factor where one divides the other.

    ``(4 6)`` against ``(8 3)``: 6 is ``(2 3)``, whose minor 3 is 3; what is left, ``(4 2)`` against ``(8)``, makes 8 ``(4 2)``.
    ``(4 6)`` against ``(6 4)``: neither of 6 and 4 divides the other, so that all of these factors are fixed.
    """
    equal: list[tuple[Factor, Factor]] = []
    xs, ys = list(x.parts), list(y.parts)
    while xs and ys:
        p, q = xs.pop(), ys.pop()
        if p.size < q.size:
            p, q, xs, ys = q, p, ys, xs
        if p.size % q.size:
            for rest in (p, q, *xs, *ys):
                fix(rest, why)
            return equal
        if p.size > q.size:
            major, minor = Factor(p.size // q.size), Factor(q.size)
            equal.append((p, product((major, minor))))
            xs.append(major)
            p = minor
        equal.append((p, q))
    return equal


def _expand(x: Factor, y: Factor, why: object) -> list[tuple[Factor, Factor]]:
    """Product against sum: the major factor is a sum, ``(f rest) = (m1 + m2) rest = (m1 rest) + (m2 rest)``.

    ``(10 3)`` against ``12+18``: 12 = 4 * 3 and 18 = 6 * 3, so that 10 is ``4+6``, 12 is ``(4 3)`` and 18 is ``(6 3)``.
    """
    major, rest = x.parts[0], product(x.parts[1:])
    if any(part.size % rest.size for part in y.parts):
        fix(x, why)
        fix(y, why)
        return []
    pieces = [Factor(part.size // rest.size) for part in y.parts]
    equal = [(major, direct_sum(pieces))]
    equal.extend((part, product((piece, rest))) for piece, part in zip(pieces, y.parts, strict=True))
    return equal


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
    return sum(parts) if top.kind == SUM else math.prod(parts)


def index(factor: Factor, keep: Mapping[Factor, Positions]) -> Positions:
    """The positions of ``factor`` that remain when each leaf root in ``keep`` keeps those positions (others: all).

    A sum is a running offset, a product a mixed radix; that covers concatenation offsets, flatten strides, heads, groups of a
    convolution and pixel shuffles. Returns int64 [length], ascending if the kept positions are.

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
    result, inner, at = np.full(top.size, -1), top.size, 0
    if top.kind == SUM:
        for part in top.parts:
            if part is leaf or part.kind != LEAF:  # a sum of many parts has few that matter
                result[at : at + part.size] = labels(part, leaf)
            at += part.size
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
