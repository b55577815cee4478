"""Groups that only linear maps touch, and the basis in which they are cut best.

What runs along such a group is made by constant matrices, moved, added, and summed over by others: the width of values between a
value and an output projection, of queries and keys between their projections, of a residual stream that no rectifier cuts. Any
invertible ``R`` may then be put in between, ``x -> x R`` where the group is made and ``w -> R^-1 w`` where it is summed over,
and nothing changes. With second moments ``P`` on one side of the sums and ``Q`` on the other, the least error in ``x w`` that
``r`` directions can have is that of the ``r`` largest eigenvectors ``U`` of ``P^1/2 Q P^1/2``, by ``R = P^-1/2 U``: reduced rank
regression where the other side is a matrix, the best approximation of all logits where queries meet keys. A basis belongs to
each index of what goes along with the group everywhere, as heads do with their widths.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune import runtime
from onnxprune.axes import LEAF, Factor, Positions, labels, leaves
from onnxprune.readers import CONVOLUTIONS, PRODUCTS, Consumers
from onnxprune.weights import Array, Weight

if TYPE_CHECKING:
    from onnxprune.calibration import Feeds
    from onnxprune.coupling import Coupling, CouplingGroup, NodeAxes
    from onnxprune.model import Model

__all__ = ["Basis", "find"]

Scores = npt.NDArray[np.float64]
DAMPING = 1e-4
"""Added to the diagonal of second moments, relative to its mean."""
_MOST = 1024
"""Positions of a group up to which bases are sought."""
_MOVES = frozenset({"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
_SUMS = frozenset({"Add", "Concat", "Sub", "Sum"})
_ON_THE_WAY = frozenset({"Add", "Cast", "Div", "Mul", "Where"})
"""Between logits and their softmax."""
_STEPS = 6
_ROWS = 1 << 16
"""Rows of one batch that moments take in, at most."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A basis for each companion index of a group.

    Attributes:
        leaf: the group's factor.
        companions: the factors that go along with it everywhere.
        sides: for each constant that the group runs along, whether it is on the second side.
        forth: columns are directions on the first side, the most important first. float64 [companions, size, size]
        back: the same on the second side: ``forth^-T``. float64 [companions, size, size]
        lost: the share of what is summed that goes with so many directions, ascending. [size + 1]
    """

    leaf: Factor
    companions: tuple[Factor, ...]
    sides: Mapping[str, bool]
    forth: Array
    back: Array
    lost: Scores

    def turn(self, model: Model, coupling: Coupling, keep: Positions) -> None:
        """Write the constants of a model in the basis, the most important directions at the positions ``keep``."""
        order = np.argsort(np.concatenate([keep, np.setdiff1d(np.arange(self.leaf.size), keep)]))
        for name, second in self.sides.items():
            array = model.weights[name].array()
            seen = _Seen(coupling.axes[name], self.leaf, self.companions)
            turned = (self.back if second else self.forth)[:, :, order].transpose(0, 2, 1)
            blocks = np.matmul(turned, seen.blocks(array).astype(np.float64))
            model.weights[name] = Weight(name, None, seen.put(array, blocks))


class _Seen:
    """How a tensor with the axes ``factors`` is seen along a leaf: as blocks [companions, size, others]."""

    def __init__(self, factors: Sequence[Factor], leaf: Factor, companions: Sequence[Factor]) -> None:
        self.axis = axis_of(factors, leaf)
        along = set(leaves(factors[self.axis]))
        inner = [companion for companion in companions if companion in along]
        outer = [companion for companion in companions if companion not in along]
        digit = labels(factors[self.axis], leaf)
        which = np.zeros(len(digit), np.int64)
        for companion in inner:
            which = which * companion.size + labels(factors[self.axis], companion)
        belong = np.flatnonzero(digit >= 0)
        self._rows = belong[np.lexsort((digit[belong], which[belong]))]
        self._front = [axis_of(factors, companion) for companion in outer]
        self._count = math.prod(companion.size for companion in companions)
        self._size = leaf.size

    def blocks(self, array: Array) -> Array:
        moved = self._moved(array)[..., self._rows, :]
        return moved.reshape(self._count, self._size, -1)

    def put(self, array: Array, blocks: Array) -> Array:
        """The tensor with other blocks, in its type."""
        result = array.copy()
        moved = self._moved(result)
        moved[..., self._rows, :] = blocks.reshape(moved[..., self._rows, :].shape)
        front = [*self._front, self.axis]
        rest = [size for at, size in enumerate(array.shape) if at not in front]
        back = moved.reshape([*(array.shape[at] for at in front), *rest])
        return np.ascontiguousarray(np.moveaxis(back, range(len(front)), front))

    def _moved(self, array: Array) -> Array:
        """[companions that have an axis of their own, positions along the leaf's axis, others]"""
        front = [*self._front, self.axis]
        moved = np.moveaxis(array, front, range(len(front)))
        outer = math.prod(array.shape[at] for at in self._front)
        return moved.reshape(outer, array.shape[self.axis], -1)


def axis_of(factors: Sequence[Factor], leaf: Factor) -> int:
    """The axis on which a leaf lies."""
    return next(at for at, factor in enumerate(factors) if leaf in leaves(factor))


@dataclass(frozen=True, slots=True)
class _Sum:
    """A node that sums over a group: the values that carry it there, on either side; which of them are keys, if one is.

    All logits of a query may be shifted alike: keys count without their mean.
    """

    first: str
    second: str
    keys: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A group that has bases, before anything is measured."""

    group: CouplingGroup
    companions: tuple[Factor, ...]
    constants: Mapping[str, bool]
    sums: tuple[_Sum, ...]


def find(model: Model, coupling: Coupling, feeds: Feeds) -> dict[str, Basis]:
    """The bases of all groups that have one, from one pass over the samples; by group id."""
    consumers = model.consumers()
    groups = [found for group in coupling.groups if (found := _linear(model, coupling, group, consumers)) is not None]
    seen = {
        (name, found.group.id): _Seen(coupling.axes[name], found.group.factor, found.companions)
        for found in groups
        for name in dict.fromkeys(name for some in found.sums for name in (some.first, some.second))
    }
    moments = {key: _Moments() for key in seen}
    names = list(dict.fromkeys(name for name, _ in moments if name not in model.weights))
    if not names:
        return {}
    session = runtime.Session(model, names, threads=0)
    constants = {name: model.weights[name].array() for name, _ in moments if name in model.weights}
    for feed in itertools.chain([None], feeds):
        got = constants if feed is None else dict(zip(names, session.run(feed), strict=True))
        for key, total in moments.items():
            if key[0] in got:
                total.add(seen[key].blocks(got[key[0]]))
    return {found.group.id: _basis(found, moments) for found in groups}


class _Moments:
    """Sums of products and of values over rows."""

    def __init__(self) -> None:
        self._products: Array = np.zeros(())
        self._sums: Array = np.zeros(())
        self._count = 0

    def add(self, rows: Array) -> None:
        step = -(-rows.shape[2] // _ROWS)
        rows = rows[:, :, ::step].astype(np.float32)
        self._products = self._products + np.matmul(rows, rows.transpose(0, 2, 1))
        self._sums = self._sums + rows.sum(2)
        self._count += rows.shape[2]

    def second(self, *, centred: bool = False) -> Array:
        """Mean products; of deviations from the mean if ``centred``. float64 [companions, size, size]"""
        products: Array = self._products.astype(np.float64) / self._count
        if centred:
            means = self._sums.astype(np.float64) / self._count
            products = products - means[:, :, None] * means[:, None, :]
        return products


def _basis(found: _Found, moments: Mapping[tuple[str, str], _Moments]) -> Basis:
    """Reduced rank regression, in closed form; several sums count by what each puts out."""
    size = found.group.size
    first: Array = np.zeros(())
    second: Array = np.zeros(())
    for some in found.sums:
        p, q = (moments[name, found.group.id].second(centred=name == some.keys) for name in (some.first, some.second))
        scale = max(float(np.trace(p, axis1=1, axis2=2).sum()), 1e-30)
        power = max(float(np.einsum("cij,cij->", p, q)), 1e-30)
        first, second = first + p / scale, second + q * (scale / power)
    level = np.trace(first, axis1=1, axis2=2)[:, None, None] / size
    values, vectors = np.linalg.eigh(first + (DAMPING * level + 1e-30) * np.eye(size))
    root = np.sqrt(values)[:, None, :]
    half, inverse = (vectors * root) @ vectors.transpose(0, 2, 1), (vectors / root) @ vectors.transpose(0, 2, 1)
    gains, turned = np.linalg.eigh(half @ second @ half)
    gains, turned = np.maximum(gains[:, ::-1], 0), turned[:, :, ::-1]
    forth, back = inverse @ turned, half @ turned
    length = np.linalg.norm(forth, axis=1, keepdims=True)
    share = gains.sum(0) / max(float(gains.sum()), 1e-30)
    lost = np.concatenate([[0.0], np.cumsum(share[::-1])])
    return Basis(found.group.factor, found.companions, found.constants, forth / length, back * length, lost)


# --- Which groups ----------------------------------------------------------------------------------------------------


def _linear(model: Model, coupling: Coupling, group: CouplingGroup, consumers: Consumers) -> _Found | None:
    """The group, if nothing but linear maps, the same for all its positions, touches it."""
    leaf = group.factor
    if not 1 < group.size <= _MOST or not group.exact:
        return None
    sides, sums = _Sides(), []
    for node in coupling.nodes:
        carried = [letter for letter, factor in node.letters.items() if leaf in leaves(factor)]
        if not carried:
            continue
        links = _links(node, carried[0]) if len(carried) == 1 else None
        if links is None or not all(sides.join(*link) for link in links):
            return None
        if links and links[0][2]:
            one, other, _ = links[0]
            sums.append(_Sum(one, other, other if _softmax_behind(node, consumers) else ""))
    values = list(sides.of)
    if not sums or any(not _plain(coupling.axes[value], leaf) for value in values):
        return None
    constants = {value: sides.second(value) for value in values if value in model.weights}
    if any(not model.weights[name].is_float or len(consumers[name]) > 1 for name in constants):
        return None
    turned = [replace(some, first=some.second, second=some.first) if sides.second(some.first) else some for some in sums]
    companions = _companions([coupling.axes[value] for value in values], [coupling.axes[value] for value in constants], leaf)
    return _Found(group, companions, constants, tuple(turned))


class _Sides:
    """Values in two classes: union by links that say whether both ends are on the same side."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, bool]] = {}

    def _root(self, value: str) -> tuple[str, bool]:
        flipped = False
        while self.of.setdefault(value, (value, False))[0] != value:
            value, flip = self.of[value]
            flipped ^= flip
        return value, flipped

    def join(self, one: str, other: str, across: bool) -> bool:
        """State that two values are on one side, or ``across`` on different ones; whether that can be."""
        (a, flip), (b, flop) = self._root(one), self._root(other)
        if a == b:
            return (flip ^ flop) == across
        self.of[b] = (a, flip ^ flop ^ across)
        return True

    def second(self, value: str) -> bool:
        """Whether a value is on the second side."""
        return self._root(value)[1]


def _links(node: NodeAxes, letter: str) -> list[tuple[str, str, bool]] | None:
    """What a node says about the sides of its values that carry a letter; ``None`` if it is not linear in them."""
    view, rule = node.view, node.rule
    if node.inside or view.domain or letter in rule.mix | rule.fixed | rule.sums or rule.quantized:
        return None
    inputs = list(dict.fromkeys(position for position, _ in node.equation.carriers.get(letter, ())))
    outputs = [at for at, tensor in enumerate(node.equation.outputs) if any(letter in block for axis in tensor for block in axis)]
    names = [view.inputs[at] for at in inputs]
    if view.op in CONVOLUTIONS | PRODUCTS and not outputs:
        return [(names[0], names[1], True)] if len(set(names)) == 2 else None
    factors = [at for at in inputs if at < 2]
    given = sum(view.has(at) for at in range(len(view.inputs)))
    linear = (
        (view.op in CONVOLUTIONS | PRODUCTS and len(factors) == 1)
        or (view.op in _MOVES | _MEANS and inputs == [0])
        or (view.op in _SUMS and len(inputs) == given)
        or (view.op == "Mul" and len(inputs) == 1)
        or (view.op == "Div" and inputs == [0])
    )
    if not linear or not outputs:
        return None
    ends = [*names, *(view.outputs[at] for at in outputs)]
    return [(ends[0], end, False) for end in ends[1:]]


def _plain(factors: Sequence[Factor], leaf: Factor) -> bool:
    """Whether a leaf occurs once in a tensor."""
    return sum(found is leaf for factor in factors for found in leaves(factor)) == 1


def _companions(values: Sequence[Sequence[Factor]], constants: Sequence[Sequence[Factor]], leaf: Factor) -> tuple[Factor, ...]:
    """The leaves that lie beside another one in every value, on an axis of their own or on its axis; on its axis in constants."""

    def beside(factors: Sequence[Factor], *, own: bool) -> set[Factor]:
        axis = factors[axis_of(factors, leaf)]
        found = set(leaves(axis)) if min(labels(axis, leaf)) >= 0 else set()
        return found | ({factor.root for factor in factors if own and factor.root.kind == LEAF})

    sets = [beside(factors, own=True) for factors in values] + [beside(factors, own=False) for factors in constants]
    common = set.intersection(*sets) - {leaf}
    first = [found for factor in values[0] for found in leaves(factor)]
    return tuple(dict.fromkeys(found for found in first if found in common))


def _softmax_behind(node: NodeAxes, consumers: Consumers) -> bool:
    """Whether a product goes into a softmax, scaled and masked at most."""
    value = node.view.outputs[0]
    for _ in range(_STEPS):
        behind = consumers.get(value, [])
        if len(behind) != 1:
            return False
        after = behind[0][0]
        if after.op_type == "Softmax":
            return True
        if after.op_type not in _ON_THE_WAY:
            return False
        value = after.output[0]
    return False
