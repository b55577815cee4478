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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import LEAF, SUM, Factor, Positions, labels, leaves
from onnxprune.ir.weights import Array, Weight
from onnxprune.linear.layers import CONVOLUTIONS, PRODUCTS, Consumers
from onnxprune.runtime import session as runtime

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.equation import Axis
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.data.calibration import Feeds
    from onnxprune.ir.model import Model

__all__ = ["Basis", "find"]

Scores = npt.NDArray[np.float64]
DAMPING = 1e-4
"""Added to the diagonal of second moments, relative to its mean."""
_MOST = 1024
"""Positions of a group up to which bases are sought."""
_MOVES = frozenset({"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
_SUMS = frozenset({"Add", "Sub", "Sum"})
_ON_THE_WAY = frozenset({"Add", "Cast", "Div", "Mul", "Where"})
"""Between logits and their softmax."""
_STEPS = 6
_ROWS = 1 << 16
"""Rows of one batch that moments take in, at most."""


Strand = tuple[str, int]
"""A value, and which of the places it is where a leaf runs along it: queries and keys may be parts of one tensor."""
Link = tuple[Strand, Strand, bool]
"""Two strands that are on one side, or across."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A basis for each companion index of a group.

    Attributes:
        size: of the group.
        sides: for each strand of a constant how it is seen, and whether it is on the second side.
        forth: columns are directions on the first side, the most important first. float64 [companions, size, size]
        back: the same on the second side: ``forth^-T``. float64 [companions, size, size]
        lost: the share of what is summed that goes with so many directions, ascending. [size + 1]
    """

    size: int
    sides: Mapping[Strand, tuple[_Seen, bool]]
    forth: Array
    back: Array
    lost: Scores

    def turn(self, model: Model, keep: Positions) -> None:
        """Write the constants of a model in the basis, the most important directions at the positions ``keep``."""
        order = np.argsort(np.concatenate([keep, np.setdiff1d(np.arange(self.size), keep)]))
        for (name, _), (seen, second) in self.sides.items():
            array = model.weights[name].array()
            turned = (self.back if second else self.forth)[:, :, order].transpose(0, 2, 1)
            blocks = np.matmul(turned, seen.blocks(array).astype(np.float64))
            model.weights[name] = Weight(name, None, seen.put(array, blocks))


class _Seen:
    """How a tensor is seen along one strand of a leaf: as blocks [companions, size, others].

    Attributes:
        in_order: whether companions with an axis of their own come before those on the leaf's, as blocks are ordered.
    """

    def __init__(self, factors: Sequence[Factor], leaf: Factor, strand: int, companions: Sequence[Factor]) -> None:
        self._axis, digit = _strands(factors, leaf)[strand]
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


def _strands(factors: Sequence[Factor], leaf: Factor) -> list[tuple[int, Positions]]:
    """Every place of a leaf in a tensor: the axis, and for each index there the position of the leaf, -1 for none."""
    return [(axis, digit) for axis, factor in enumerate(factors) for digit in _digits(factor, leaf)]


def _digits(factor: Factor, leaf: Factor) -> list[Positions]:
    """One array for each place of a leaf in a factor, in order; none of those in a product in which it occurs twice."""
    top = factor.root
    if top.kind == LEAF:
        return [np.arange(top.size)] if top is leaf else []
    found = [_digits(part, leaf) for part in top.parts]
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


@dataclass(frozen=True, slots=True)
class _Sum:
    """A node that sums over a group: what carries it there, on either side; which of both are keys, if they are.

    All logits of a query may be shifted alike: keys count without their mean.
    """

    first: Strand
    second: Strand
    keys: Strand | None


@dataclass(frozen=True, slots=True)
class _Found:
    """A group that has bases, before anything is measured."""

    group: CouplingGroup
    seen: Mapping[Strand, _Seen]
    constants: Mapping[Strand, bool]
    sums: tuple[_Sum, ...]


def find(model: Model, coupling: Coupling, feeds: Feeds) -> dict[str, Basis]:
    """The bases of all groups that have one, from one pass over the samples; by group id."""
    consumers = model.consumers()
    touching: dict[Factor, list[NodeAxes]] = {group.factor: [] for group in coupling.groups}
    for node in coupling.nodes:
        for leaf in {leaf for factor in node.letters.values() for leaf in leaves(factor)} & touching.keys():
            touching[leaf].append(node)
    sought = (_linear(model, coupling, group, touching[group.factor], consumers) for group in coupling.groups)
    groups = [found for found in sought if found is not None]
    moments = {
        (found.group.id, strand): _Moments(found.seen[strand])
        for found in groups
        for some in found.sums
        for strand in (some.first, some.second)
    }
    names = list(dict.fromkeys(name for _, (name, _) in moments if name not in model.weights))
    if not names:
        return {}
    session = runtime.Session(model, names, threads=0)
    constants = {name: model.weights[name].array() for _, (name, _) in moments if name in model.weights}
    for feed in itertools.chain([None], feeds):
        got = constants if feed is None else dict(zip(names, session.run(feed), strict=True))
        for (_, (name, _)), total in moments.items():
            if name in got:
                total.add(got[name])
    return {found.group.id: _basis(found, moments) for found in groups}


class _Moments:
    """Sums of products and of values over rows."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen
        self._products: Array = np.zeros(())
        self._sums: Array = np.zeros(())
        self._count = 0

    def add(self, array: Array) -> None:
        rows = self._seen.blocks(array)
        rows = rows[:, :, :: -(-rows.shape[2] // _ROWS)].astype(np.float32)
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


def _basis(found: _Found, moments: Mapping[tuple[str, Strand], _Moments]) -> Basis:
    """Reduced rank regression, in closed form; several sums count by what each puts out."""
    size = found.group.size
    first: Array = np.zeros(())
    second: Array = np.zeros(())
    for some in found.sums:
        p, q = (moments[found.group.id, end].second(centred=end == some.keys) for end in (some.first, some.second))
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
    sides = {strand: (found.seen[strand], second) for strand, second in found.constants.items()}
    return Basis(size, sides, forth / length, back * length, lost)


# --- Which groups ----------------------------------------------------------------------------------------------------


def _linear(
    model: Model, coupling: Coupling, group: CouplingGroup, nodes: Sequence[NodeAxes], consumers: Consumers
) -> _Found | None:
    """The group, if nothing but linear maps, the same for all its positions, touches it."""
    leaf = group.factor
    if not 1 < group.size <= _MOST or not group.exact:
        return None
    sides, sums = _Sides(), []
    for node in nodes:
        links = _links(node, leaf)
        if links is None or not all(sides.join(*link) for link in links):
            return None
        for one, other, across in links:
            if across:
                sums.append(_Sum(one, other, other if _softmax_behind(node, consumers) else None))
    strands = list(sides.of)
    values = {name: coupling.axes[name] for name, _ in strands}
    places = {name: len(_strands(factors, leaf)) for name, factors in values.items()}
    count = {name: sum(found is leaf for factor in factors for found in leaves(factor)) for name, factors in values.items()}
    constants = {strand: sides.second(strand) for strand in strands if strand[0] in model.weights}
    if not sums or places != count or any(not model.weights[name].is_float or len(consumers[name]) > 1 for name, _ in constants):
        return None
    companions = _companions(values, {name for name, _ in constants}, leaf)
    seen = {(name, strand): _Seen(values[name], leaf, strand, companions) for name, strand in strands}
    if not all(one.in_order for one in seen.values()):
        return None
    turned = [replace(some, first=some.second, second=some.first) if sides.second(some.first) else some for some in sums]
    return _Found(group, seen, constants, tuple(turned))


class _Sides:
    """Strands in two classes: union by links that say whether both ends are on the same side."""

    def __init__(self) -> None:
        self.of: dict[Strand, tuple[Strand, bool]] = {}

    def _root(self, strand: Strand) -> tuple[Strand, bool]:
        flipped = False
        while self.of.setdefault(strand, (strand, False))[0] != strand:
            strand, flip = self.of[strand]
            flipped ^= flip
        return strand, flipped

    def join(self, one: Strand, other: Strand, across: bool) -> bool:
        """State that two strands are on one side, or ``across``; whether that can be."""
        (a, flip), (b, flop) = self._root(one), self._root(other)
        if a == b:
            return (flip ^ flop) == across
        self.of[b] = (a, flip ^ flop ^ across)
        return True

    def second(self, strand: Strand) -> bool:
        """Whether a strand is on the second side."""
        return self._root(strand)[1]


def _links(node: NodeAxes, leaf: Factor) -> list[Link] | None:
    """What a node says about the sides of the strands that run through it; ``None`` if it is not linear in them."""
    view, rule = node.view, node.rule
    inputs = _ends(node, node.equation.inputs, view.inputs, leaf)
    outputs = _ends(node, node.equation.outputs, view.outputs, leaf)
    letters = {letter for letter, _ in (*inputs, *outputs)}
    if node.inside or view.domain or letters & (rule.mix | rule.fixed | rule.sums) or rule.quantized:
        return None
    given = sum(view.has(at) for at in range(len(view.inputs)))
    links: list[Link] = []
    for place in dict.fromkeys((*inputs, *outputs)):
        ins, outs = inputs.get(place, {}), outputs.get(place, {})
        product = view.op in CONVOLUTIONS | PRODUCTS
        if product and not outs:
            if set(ins) != {0, 1} or view.inputs[0] == view.inputs[1]:
                return None
            links.append((ins[0], ins[1], True))
            continue
        linear = (
            (product and len(ins.keys() & {0, 1}) == 1)
            or (view.op in _MOVES | _MEANS and set(ins) == {0})
            or (view.op in {"Split", "Concat"} and len(ins) > 0)
            or (view.op in _SUMS and len(ins) == given)
            or (view.op == "Mul" and len(ins) == 1)
            or (view.op == "Div" and set(ins) == {0})
        )
        if not linear or not outs:
            return None
        ends = [*ins.values(), *outs.values()]
        links += [(ends[0], end, False) for end in ends[1:]]
    return links


Place = tuple[str, int]
"""A letter of a node, and which of the places of the leaf in it."""


def _ends(
    node: NodeAxes, tensors: Sequence[Sequence[Axis]], names: Sequence[str], leaf: Factor
) -> dict[Place, dict[int, Strand]]:
    """For each place of a leaf in a letter the strands that carry it, by the position of their tensor."""
    found: dict[Place, dict[int, Strand]] = {}
    for position, (tensor, name) in enumerate(zip(tensors, names, strict=False)):
        strand = 0
        for letter in (letter for axis in tensor for block in axis for letter in block if letter in node.letters):
            for at in range(sum(one is leaf for one in leaves(node.letters[letter]))):
                if name:
                    found.setdefault((letter, at), {})[position] = (name, strand)
                strand += 1
    return found


def _companions(values: Mapping[str, Sequence[Factor]], constants: Collection[str], leaf: Factor) -> tuple[Factor, ...]:
    """The leaves that go along with another one in every value: beside it on its axis, or, in activations, on their own."""
    common: dict[Factor, None] | None = None
    for name, factors in values.items():
        for axis, digit in _strands(factors, leaf):
            found = {one: labels(factors[axis], one) for one in leaves(factors[axis]) if one is not leaf}
            beside = dict.fromkeys(one for one, other in found.items() if other[digit >= 0].min() >= 0)
            if name not in constants:
                beside |= dict.fromkeys(
                    factor.root for at, factor in enumerate(factors) if at != axis and factor.root.kind == LEAF
                )
            common = beside if common is None else {one: None for one in common if one in beside}
    return tuple(common or ())


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
