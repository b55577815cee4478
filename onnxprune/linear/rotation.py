"""The basis in which a group that only linear maps touch is cut best.

What runs along such a group is made by constant matrices, moved, added, and summed over by others: the width of values between a
value and an output projection, of queries and keys between their projections, of a residual stream that no rectifier cuts. Any
invertible ``R`` may then be put in between, ``x -> x R`` where the group is made and ``w -> R^-1 w`` where it is summed over,
and nothing changes. With second moments ``P`` on one side of the sums and ``Q`` on the other, the least error in ``x w`` that
``r`` directions can have is that of the ``r`` largest eigenvectors ``U`` of ``P^1/2 Q P^1/2``, by ``R = P^-1/2 U``: reduced rank
regression where the other side is a matrix, the best approximation of all logits where queries meet keys. A basis belongs to
each index of what goes along with the group everywhere, as heads do with their widths.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from onnxprune.ir.weights import Array, Weight
from onnxprune.linear.linear_groups import LinearGroup, linear_groups
from onnxprune.linear.products import lift

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Positions
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Floats
    from onnxprune.linear.strands import Strand, StrandView

__all__ = ["Basis", "BasisSums", "restored_bases"]

ROTATION_DAMPING = 1e-4
"""Added to the diagonal of second moments, relative to its mean, so that the root has an inverse where positions depend on
each other; less than a ridge, since no weights are fitted that could overfit."""
_ROWS = 1 << 16
"""Rows of one batch that moments take in, at most."""


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
    sides: Mapping[Strand, tuple[StrandView, bool]]
    forth: Array
    back: Array
    lost: Floats

    def rotate(self, model: Model, keep: Positions) -> None:
        """Write the constants of a model in the basis, the most important directions at the positions ``keep``."""
        order = np.argsort(np.concatenate([keep, np.setdiff1d(np.arange(self.size), keep)]))
        for (name, _), (seen, second) in self.sides.items():
            array = model.weights[name].array()
            turned = (self.back if second else self.forth)[:, :, order].transpose(0, 2, 1)
            blocks = np.matmul(turned, seen.blocks(array).astype(np.float64))
            model.weights[name] = Weight(name, None, seen.put(array, blocks))


class BasisSums:
    """Adds up what the bases of all groups that have one follow from.

    Attributes:
        names: the values that are looked at.
    """

    def __init__(self, model: Model, coupling: Coupling) -> None:
        """Nothing is added yet but constants.

        Args:
            model: the normalised original.
            coupling: its groups.
        """
        self._groups = linear_groups(model, coupling)
        self._moments = {
            (found.group.id, strand): _ProductSums(found.seen[strand])
            for found in self._groups
            for some in found.sums
            for strand in (some.first, some.second)
        }
        read = list(dict.fromkeys(name for _, (name, _) in self._moments))
        self.names = [name for name in read if name not in model.weights]
        self.add({name: model.weights[name].array() for name in read if name in model.weights})

    @property
    def nbytes(self) -> int:
        """What the sums fill that are taken of values."""
        return sum(total.nbytes for total in self._open())

    def fresh(self, shard: int) -> Self:
        """One for a shard, without what is known of constants."""
        made = copy.copy(self)
        made._groups = []
        made._moments = {key: total.fresh() for key, total in self._moments.items() if key[1][0] in self.names}
        return made

    def state(self) -> list[tuple[Array, Array, int]]:
        """Sums and counts of what is taken of values."""
        return [total.state for total in self._open()]

    def merge(self, state: list[tuple[Array, Array, int]]) -> None:
        """Take in the sums of another one."""
        for total, other in zip(self._open(), state, strict=True):
            total.merge(*other)

    def _open(self) -> list[_ProductSums]:
        """The sums of values, which are not constants."""
        return [total for (_, (name, _)), total in self._moments.items() if name in self.names]

    def add(self, values: Mapping[str, Array]) -> None:
        """Take in one batch, by name."""
        for (_, (name, _)), total in self._moments.items():
            if name in values:
                total.add(values[name])

    def bases(self) -> dict[str, Basis]:
        """The bases, by group id; none where no value was looked at, or values are not finite on the samples."""
        found = {group.group.id: _basis(group, self._moments) for group in self._groups} if self.names else {}
        return {name: basis for name, basis in found.items() if basis is not None}


def restored_bases(model: Model, coupling: Coupling, kept: Mapping[str, Sequence[Array]]) -> dict[str, Basis] | None:
    """Bases from arrays that were kept; ``None`` where they are not those of the model.

    Args:
        model: the normalised original.
        coupling: its groups.
        kept: `Basis.forth`, ``back`` and ``lost``, by group id.
    """
    groups = {found.group.id: found for found in linear_groups(model, coupling)}
    if not kept.keys() <= groups.keys():
        return None
    bases = {}
    for name, found in groups.items():
        if name not in kept:
            continue
        size = found.group.size
        sides = {strand: (found.seen[strand], second) for strand, second in found.constants.items()}
        blocks = {len(seen.blocks(model.weights[weight].array())) for (weight, _), (seen, _) in sides.items()}
        shapes = [[(count, size, size), (count, size, size), (size + 1,)] for count in blocks]
        arrays = kept[name]
        if any([array.shape for array in arrays] != wanted for wanted in shapes):
            return None
        if len(arrays) != len(("forth", "back", "lost")) or not all(_is_sound(array) for array in arrays):
            return None
        bases[name] = Basis(size, sides, *arrays)
    return bases


def _is_sound(array: Array) -> bool:
    return array.dtype == np.float64 and bool(np.isfinite(array).all())


class _ProductSums:
    """Sums of products and of values over rows."""

    def __init__(self, seen: StrandView) -> None:
        self._seen = seen
        self._products: Array = np.zeros(())
        self._sums: Array = np.zeros(())
        self._count = 0

    def fresh(self) -> _ProductSums:
        return _ProductSums(self._seen)

    @property
    def nbytes(self) -> int:
        return 8 * self._seen.products

    @property
    def state(self) -> tuple[Array, Array, int]:
        return self._products, self._sums, self._count

    def merge(self, products: Array, sums: Array, count: int) -> None:
        if count:
            self._products = self._products + products if self._count else products
            self._sums = self._sums + sums if self._count else sums
            self._count += count

    def add(self, array: Array) -> None:
        rows = self._seen.blocks(array)
        rows = rows[:, :, :: -(-rows.shape[2] // _ROWS)].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a group of which anything is not finite gets no basis
            self._products = self._products + np.matmul(rows, rows.transpose(0, 2, 1))
            self._sums = self._sums + rows.sum(2)
        self._count += rows.shape[2]

    def second(self, *, centred: bool = False) -> Array:
        """Mean products; of deviations from the mean if ``centred``. float64 [companions, size, size]"""
        products: Array = self._products.astype(np.float64) / self._count
        if not centred:
            return products
        means = self._sums.astype(np.float64) / self._count
        with np.errstate(invalid="ignore"):
            centred_products: Array = products - means[:, :, None] * means[:, None, :]
            return centred_products + lift(centred_products)[:, None, None] * np.eye(means.shape[1])


def _basis(found: LinearGroup, moments: Mapping[tuple[str, Strand], _ProductSums]) -> Basis | None:
    """Solve the reduced rank regression in closed form; several sums count by the power of their outputs.

    ``None`` where a sum is not finite: of rows that are masked out altogether, or in which nothing is left.
    """
    size = found.group.size
    first: Array = np.zeros(())
    second: Array = np.zeros(())
    for some in found.sums:
        p, q = (moments[found.group.id, end].second(centred=end == some.keys) for end in (some.first, some.second))
        if not (np.isfinite(p).all() and np.isfinite(q).all()):
            return None
        scale = max(float(np.trace(p, axis1=1, axis2=2).sum()), 1e-30)
        power = max(float(np.einsum("cij,cij->", p, q)), 1e-30)
        first, second = first + p / scale, second + q * (scale / power)
    level = np.trace(first, axis1=1, axis2=2)[:, None, None] / size
    # P = V diag(values) V^T, P^1/2 = V diag(root) V^T, P^-1/2 = V diag(1 / root) V^T
    values, vectors = np.linalg.eigh(first + (ROTATION_DAMPING * level + 1e-30) * np.eye(size))
    root = np.sqrt(values)[:, None, :]
    half, inverse = (vectors * root) @ vectors.transpose(0, 2, 1), (vectors / root) @ vectors.transpose(0, 2, 1)
    # P^1/2 Q P^1/2 = U diag(gains) U^T; R = P^-1/2 U and R^-T = P^1/2 U, the largest gains first
    gains, turned = np.linalg.eigh(half @ second @ half)
    gains, turned = np.maximum(gains[:, ::-1], 0), turned[:, :, ::-1]
    forth, back = inverse @ turned, half @ turned
    length = np.linalg.norm(forth, axis=1, keepdims=True)
    share = gains.sum(0) / max(float(gains.sum()), 1e-30)
    lost = np.concatenate([[0.0], np.cumsum(share[::-1])])
    sides = {strand: (found.seen[strand], second) for strand, second in found.constants.items()}
    return Basis(size, sides, forth / length, back * length, lost)
