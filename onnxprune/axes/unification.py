"""Unification: which factors are the same index set.

`unify` states that two factors are one and refines both until their leaves agree. It is a union-find over leaves with structural
refinement, iterative and near-linear in the number of statements.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from onnxprune.axes.factors import LEAF, PERMUTED, PRODUCT, SUM, Factor, direct_sum, fix, leaves, mix, permuted, product

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.axes.factors import Positions

__all__ = ["pick", "unify"]


def _become(leaf: Factor, other: Factor, why: object) -> None:
    """The class of ``leaf`` joins ``other``, of the same size, and hands over its marks; one that is permuted to itself stays."""
    if other.kind == PERMUTED and leaf in leaves(other):
        fix(leaf, why)
        return
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

    A permutation is matched position by position: leaves are cut into what they have in common.

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
            _become(x, y, why)
        elif y.kind == LEAF:
            _become(y, x, why)
        elif PERMUTED in {x.kind, y.kind}:
            todo.extend(_match(x, y, why))
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
        if not q.size or p.size % q.size:
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
    if not rest.size or any(part.size % rest.size for part in y.parts):
        fix(x, why)
        fix(y, why)
        return []
    pieces = [Factor(part.size // rest.size) for part in y.parts]
    equal = [(major, direct_sum(pieces))]
    equal.extend((part, product((piece, rest))) for piece, part in zip(pieces, y.parts, strict=True))
    return equal


def pick(factor: Factor, positions: Positions, why: object) -> Factor:
    """The factor of an axis that holds the given positions of another, which may come in any order, and more than once.

    Positions of the other factor that are there equally often go together: it becomes the sum of these classes, permuted. Where
    one goes, so does every copy of it.

    >>> channels = Factor(4)
    >>> pick(channels, np.array([2, 0]), "a list"), channels
    (2@, (2+2)@)
    """
    times = np.bincount(positions, minlength=factor.size)
    rank, whole, copies = np.zeros(factor.size, np.int64), np.zeros(factor.size, np.int64), {}
    classes: list[Factor] = []
    at = picked = 0
    for count in np.unique(times).tolist():
        members = np.flatnonzero(times == count)
        rank[members], whole[members] = np.arange(len(members)), at + np.arange(len(members))
        classes.append(Factor(len(members)))
        copies[count] = picked
        at, picked = at + len(members), picked + len(members) * count
    unify(factor, permuted(direct_sum(classes), whole), why)
    by_count = dict(zip(copies, classes, strict=True))
    order, seen = np.zeros(len(positions), np.int64), np.zeros(factor.size, np.int64)
    for at, position in enumerate(positions.tolist()):
        count = int(times[position])
        order[at] = copies[count] + seen[position] * by_count[count].size + rank[position]
        seen[position] += 1
    return permuted(direct_sum([by_count[count] for count in copies for _ in range(count)]), order)


@dataclass(frozen=True, slots=True)
class _Spread:
    """A factor, position by position.

    Attributes:
        atoms: the leaves and products below it, in order; one that occurs twice is listed twice.
        owner: the atom of each position, by its number.
        place: the position in that atom.
    """

    atoms: Sequence[Factor]
    owner: Positions
    place: Positions

    @classmethod
    def of(cls, factor: Factor) -> Self:
        top = factor.root
        if top.kind in {LEAF, PRODUCT}:
            return cls([top], np.zeros(top.size, np.int64), np.arange(top.size))
        parts = [cls.of(part) for part in top.parts]
        if top.kind == PERMUTED:
            return cls(parts[0].atoms, parts[0].owner[top.order], parts[0].place[top.order])
        starts = np.cumsum([0, *(len(part.atoms) for part in parts)])
        owners = [part.owner + start for part, start in zip(parts, starts, strict=False)]
        atoms = [atom for part in parts for atom in part.atoms]
        return cls(atoms, np.concatenate(owners), np.concatenate([part.place for part in parts]))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some positions of an atom, ``at`` those places of it, in the order of a factor that stands for them."""

    factor: Factor
    at: Positions


def _match(x: Factor, y: Factor, why: object) -> list[tuple[Factor, Factor]]:
    """Permutation against anything but a leaf: atoms are cut into what each has in common with each of the other side.

    ``4`` against ``2+2`` in the order ``0 2 1 3``: the 4 is ``(2+2)@``, its even positions and its odd ones.
    """
    xs, ys = _Spread.of(x), _Spread.of(y)
    order = np.lexsort((xs.place, ys.owner, xs.owner))
    owners = np.stack([xs.owner, ys.owner], 1)[order]
    runs = np.split(order, np.flatnonzero((owners[1:] != owners[:-1]).any(1)) + 1)
    meetings = [(int(xs.owner[run[0]]), int(ys.owner[run[0]]), xs.place[run], ys.place[run]) for run in runs]
    times = np.bincount([i for i, *_ in meetings]), np.bincount([j for _, j, *_ in meetings])
    equal: list[tuple[Factor, Factor]] = []
    pieces: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
    for i, j, p, q in meetings:
        a, b, cuts = xs.atoms[i], ys.atoms[j], (times[0][i] > 1, times[1][j] > 1)
        if cuts == (False, False):
            equal.extend(_reordered(a, b, q, why))
        elif cuts == (True, False):
            pieces[0, i].append(_Piece(b, p[np.argsort(q)]))
        else:
            common = Factor(len(p)) if cuts[0] else a
            pieces[1, j].append(_Piece(common, q))
            if cuts[0]:
                pieces[0, i].append(_Piece(common, p))
    for (side, at), found in pieces.items():
        equal.extend(_composed((xs, ys)[side].atoms[at], found, why))
    return equal


def _reordered(a: Factor, b: Factor, order: Positions, why: object) -> list[tuple[Factor, Factor]]:
    """Position ``p`` of one factor is position ``order[p]`` of another: no product is, except in its own order."""
    if np.array_equal(order, np.arange(a.size)):
        return [(a, b)]
    if a is b or LEAF not in {a.kind, b.kind}:
        fix(a, why)
        fix(b, why)
        return []
    return [(a, permuted(b, order)) if a.kind == LEAF else (b, permuted(a, np.argsort(order)))]


def _composed(atom: Factor, pieces: Sequence[_Piece], why: object) -> list[tuple[Factor, Factor]]:
    """An atom is the sum of its pieces, permuted; a product is not."""
    if atom.kind != LEAF:
        for factor in (atom, *(piece.factor for piece in pieces)):
            fix(factor, why)
        return []
    order, start = np.zeros(atom.size, np.int64), 0
    for piece in pieces:
        order[piece.at] = start + np.arange(len(piece.at))
        start += len(piece.at)
    return [(atom, permuted(direct_sum([piece.factor for piece in pieces]), order))]
