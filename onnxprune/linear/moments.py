"""Second moments of what the readers of the original network read on calibration samples, from one pass over the data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from onnxprune.axes.factors import leaves
from onnxprune.axes.graph_axes import BATCHED_PRODUCTS
from onnxprune.errors import ModelError, OptionError
from onnxprune.linear.gather import gather, shard_length
from onnxprune.linear.layers import Reader, linear_readers
from onnxprune.linear.products import gram_pieces, whole
from onnxprune.linear.regression import MOST_FEATURES, with_ones
from onnxprune.linear.rows import input_rows, pick_rows, summable
from onnxprune.runtime.memory import left, share

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = [
    "ROWS",
    "FeatureMoments",
    "Meeting",
    "MomentSums",
    "Statistics",
    "collect",
    "meetings",
    "restored_statistics",
    "rows_wanted",
]

ROWS = 32768
"""Rows of a reader that are taken in where the data has them."""
_PRODUCTS = 4e10
"""Products of two features that are summed up for one reader, about; fewer rows do for many features."""
_ENTRIES = 1 << 26
"""Numbers in the rows of one reader and their targets, 256 MiB in float32; fewer rows do where one has many,"""
_EACH = 6
"""but so many for each."""
_TOGETHER = 512
"""Rows that wait for each other before their products are made, where features are as many: with few rows, reading and writing
the sums of products would take longer than making them."""
_PART = 16
"""The part of the memory that rows may take; fewer rows do where that is short."""


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Mean products of the features of a reader, of which the last is 1 where it has a bias; for all its groups, or for one.

    Attributes:
        array: mean products of every two features, float32 [..., f, f]; or their mean squares and means alone, [..., 2, f].
        full: whether there are all products; there are not where features are more than `MOST_FEATURES`.
    """

    array: Array
    full: bool

    @property
    def squares(self) -> Array:
        """The mean square of each feature. [..., f]"""
        return np.einsum("...ff->...f", self.array) if self.full else self.array[..., 0, :]

    @property
    def means(self) -> Array:
        """The mean of each feature of a reader with a bias: with the feature that is 1 its product is itself. [..., f]"""
        return self.array[..., -1, :]

    def of_group(self, group: int) -> FeatureMoments:
        """The moments of one of the groups."""
        return FeatureMoments(self.array[group], self.full)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A product of two activations that sums over a factor: queries with keys, attention with values."""

    node: NodeAxes
    letter: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Attributes:
    readers: the linear readers of the graph.
    moments: the moments of what it reads for each reader's weight.
    meetings: products of activations over a prunable factor.
    energies: for each value that meets another, and each axis summed over there, the mean square at each index. [size]
    """

    readers: tuple[Reader, ...]
    moments: Mapping[str, FeatureMoments]
    meetings: tuple[Meeting, ...]
    energies: Mapping[tuple[str, int], Array]


def rows_wanted(features: int, entries: int = 1, most: int = ROWS) -> int:
    """The number of rows for a regression on that many features; where these are too many, a matrix of rows is inverted.

    ``entries`` are the numbers of one row, of all groups, and those of its targets where it has some: a layer of 1,000 groups or
    of 6,000 classes needs no more rows than one of few, which would fill the memory. ``most`` do unless features need more.
    """
    if features > MOST_FEATURES:
        return MOST_FEATURES
    rows = max(_EACH * features, min(most, int(_PRODUCTS / features**2), _ENTRIES // entries))
    return max(features, min(rows, share(_PART, 2**62) // (4 * features)))


def meetings(coupling: Coupling) -> Iterator[Meeting]:
    """The products of two activations that sum over a group, except those in bodies of control flow."""
    free = {group.factor for group in coupling.groups}
    for node in coupling.nodes:
        if node.inside or node.view.op not in BATCHED_PRODUCTS:
            continue
        for letter in node.equation.contracted & node.letters.keys():
            if not free.isdisjoint(leaves(node.letters[letter])) and len(node.equation.carriers[letter]) == 2:
                yield Meeting(node, letter)


def collect(model: Model, coupling: Coupling, feeds: CalibrationFeeds, *, seed: int = 0) -> Statistics:
    """Run the model over all feeds once and keep moments, no activations. ``seed`` draws rows where there are many.

    Raises:
        ModelError: what a layer reads is not finite on the samples, or its squares are not.
        OptionError: the memory that is left does not do for them.
    """
    sums = MomentSums(model, coupling, len(feeds), seed=seed)
    gather(model, feeds, sums)
    return sums.statistics()


class MomentSums:
    """Adds up the moments of what the readers of a graph read.

    Attributes:
        names: the values that are looked at.
        nbytes: what the moments fill.
    """

    def __init__(self, model: Model, coupling: Coupling, batches: int, *, seed: int = 0) -> None:
        """Nothing is added yet.

        Args:
            model: the network, in float32.
            coupling: its groups.
            batches: how many there will be.
            seed: draws rows where there are many.

        Raises:
            OptionError: the memory that is left does not do for them.
        """
        self._name, self._seed, self._rng = model.name, seed, np.random.default_rng(seed)
        self._readers = tuple(linear_readers(model, coupling))
        self._met = tuple(m for m in meetings(coupling) if model.weights.keys().isdisjoint(m.node.view.inputs))
        places = {(m.node.view.inputs[at], axis) for m in self._met for at, axis in m.node.equation.carriers[m.letter]}
        self._plan = {reader.weight: _Plan.of(reader, model, batches) for reader in self._readers}
        self.nbytes = _bytes(self._readers)
        _demand_room(model.name, len(self._readers), self.nbytes * min(2, -(-batches // shard_length(batches))))
        self.names = list(dict.fromkeys([*(reader.data for reader in self._readers), *(name for name, _ in places)]))
        self._moments = {reader.weight: _Mean() for reader in self._readers}
        self._waiting: dict[str, list[Array]] = {}
        self._energies = {place: _Mean() for place in places}

    def fresh(self, shard: int) -> Self:
        """One for a shard, which draws rows of its own; the first shard's are those that a single one draws."""
        made = copy.copy(self)
        made._met = ()  # only what is added up is asked of it
        made._rng = np.random.default_rng([self._seed, shard] if shard else self._seed)
        made._moments, made._waiting = {weight: _Mean() for weight in self._moments}, {}
        made._energies = {place: _Mean() for place in self._energies}
        return made

    def _sum(self, reader: Reader) -> None:
        """Work in the rows of a reader that wait, if any do."""
        waiting = self._waiting.pop(reader.weight, [])
        if waiting:
            rows = waiting[0] if len(waiting) == 1 else np.concatenate(waiting, 1)
            with np.errstate(over="ignore", invalid="ignore"):  # said at the end, with the name of the node
                self._moments[reader.weight].add(_second_moments(rows, full=not _too_many(reader)), rows.shape[1])

    def state(self) -> list[tuple[list[Array], int]]:
        """Totals and counts."""
        for reader in self._readers:
            self._sum(reader)
        return [mean.state for mean in (*self._moments.values(), *self._energies.values())]

    def merge(self, state: list[tuple[list[Array], int]]) -> None:
        """Take in the totals of another one."""
        for mean, (totals, count) in zip((*self._moments.values(), *self._energies.values()), state, strict=True):
            mean.add(totals, count)

    def add(self, values: Mapping[str, Array]) -> None:
        """Take in one batch, by name."""
        for reader in self._readers:
            rows = _rows(reader, values[reader.data], self._plan[reader.weight], self._rng)
            waiting = self._waiting.setdefault(reader.weight, [])
            waiting.append(rows)
            if sum(some.shape[1] for some in waiting) >= min(rows.shape[2], _TOGETHER):
                self._sum(reader)
        for (name, axis), mean in self._energies.items():
            array = values[name].astype(np.float32)
            others = tuple(at for at in range(array.ndim) if at != axis)
            mean.add([np.square(array).sum(others)], array.size // array.shape[axis])

    def statistics(self) -> Statistics:
        """What was added up, which can be asked for once: sums are given up as means are made of them.

        Raises:
            ModelError: what a layer reads is not finite on the samples, or its squares are not.
        """
        found = {}
        for reader in self._readers:
            self._sum(reader)
            found[reader.weight] = _joined(self._moments.pop(reader.weight), reader)
        for reader in self._readers:
            if not np.isfinite(found[reader.weight].squares).all():
                raise ModelError(
                    f"{self._name}: the squares of {reader.data!r} on the samples are not finite in float32 (read by "
                    f"{reader.node.view.op} with {reader.weight!r}): look for values in the samples that are far too large"
                )
        return Statistics(self._readers, found, self._met, {place: mean.value[0] for place, mean in self._energies.items()})


def restored_statistics(
    model: Model, coupling: Coupling, moments: Mapping[str, Array], energies: Mapping[tuple[str, int], Array]
) -> Statistics | None:
    """Statistics from arrays that were kept; ``None`` where they are not those of the model.

    Args:
        model: the network, in float32.
        coupling: its groups.
        moments: arrays of `FeatureMoments`, by the weight of the reader.
        energies: see `Statistics`.
    """
    sums = MomentSums(model, coupling, 1)
    readers, met = sums._readers, sums._met
    sizes = {
        (one.node.view.inputs[at], axis): one.node.sizes[one.letter]
        for one in met
        for at, axis in one.node.equation.carriers[one.letter]
    }
    if moments.keys() != {reader.weight for reader in readers} or energies.keys() != sizes.keys():
        return None
    if any(array.shape != (sizes[place],) or not _are_squares(array) for place, array in energies.items()):
        return None
    found = {reader.weight: FeatureMoments(moments[reader.weight], not _too_many(reader)) for reader in readers}
    for reader in readers:
        one, count = found[reader.weight], reader.features + reader.affine
        if one.array.shape != (reader.groups, count if one.full else 2, count):
            return None
        if not _are_squares(one.squares):
            return None
    return Statistics(readers, found, met, {place: energies[place] for place in sums._energies})


def _are_squares(array: Array) -> bool:
    return array.dtype == np.float32 and bool(np.isfinite(array).all()) and bool((array >= 0).all())


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is taken in of a reader.

    Attributes:
        kernel: the shape of its weight.
        rows: about so many of each batch.
    """

    kernel: Sequence[int]
    rows: int

    @classmethod
    def of(cls, reader: Reader, model: Model, batches: int) -> _Plan:
        wanted = rows_wanted(reader.features, reader.groups * reader.features)
        return cls(model.weights[reader.weight].shape, max(1, wanted // max(batches, 1)))


def _bytes(readers: Sequence[Reader]) -> int:
    """What the moments of all readers fill."""
    features = [(reader.groups, reader.features + reader.affine) for reader in readers]
    return sum(4 * groups * (count * count if count <= MOST_FEATURES else 2 * count) for groups, count in features)


def _demand_room(name: str, readers: int, needed: int) -> None:
    """Nothing happens if so many bytes of moments fit into the memory that is left."""
    have = left()
    if have is not None and needed > have:
        raise OptionError(
            f"{name}: statistics of {readers} layers take {needed / 1e9:.2f} GB, and {have / 1e9:.2f} GB are left: "
            "raise --max-memory, or prune without samples"
        )


class _Mean:
    """A mean over batches of any sizes; of several arrays, which may be pieces of one."""

    def __init__(self) -> None:
        self._totals: list[Array] = []
        self._count = 0

    @property
    def state(self) -> tuple[list[Array], int]:
        return self._totals, self._count

    def add(self, totals: list[Array], count: int) -> None:
        if not self._count:
            self._totals = [np.require(total, requirements="W") for total in totals]  # not what lies in Ray's shared memory
        elif count:
            for mine, other in zip(self._totals, totals, strict=True):
                mine += other  # in place: the moments of a wide layer fill 85 MB
        self._count += count

    @property
    def value(self) -> list[Array]:
        return [total / np.float32(max(self._count, 1)) for total in self._totals]


def _rows(reader: Reader, x: Array, plan: _Plan, rng: np.random.Generator) -> Array:
    picked = pick_rows(reader, x.shape, plan.kernel, plan.rows, rng)
    rows = input_rows(reader, x, picked).astype(np.float32)
    sound = summable(rows)
    rows = rows if sound.all() else rows[:, sound]
    return with_ones(rows) if reader.affine else rows


def _too_many(reader: Reader) -> bool:
    return reader.features + reader.affine > MOST_FEATURES


def _second_moments(rows: Array, *, full: bool) -> list[Array]:
    """Sums over rows of the products of features ``X^T X``, in pieces; or of their squares, and of themselves."""
    if not full:
        return [np.stack([np.square(rows).sum(1), rows.sum(1)], 1)]
    return gram_pieces(rows)


def _joined(mean: _Mean, reader: Reader) -> FeatureMoments:
    if _too_many(reader):
        return FeatureMoments(mean.value[0], full=False)
    return FeatureMoments(whole(mean.value, reader.features + reader.affine), full=True)
