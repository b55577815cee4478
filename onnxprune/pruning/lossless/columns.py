"""The columns of constant matrices that read a group: their weights, and the columns or biases that take over when some go.

Seen through `Affine`, a matrix ``[g, o, i, k]`` adds to output ``o`` of group ``g`` the terms ``matrix[g, o, i, k] * x[g, i]``.
Columns ``(g, i)`` of one *class* meet equal data, so that only the sum of their weights counts.

Worked example: three channels of data of which the first and the last are equal, and rows of weights ``[1, 5, -1]`` and
``[2, 0, -2]``. The classes are ``[0, 1, 0]``; the weights of class 0 add up to 0 in both rows, so that channels 0 and 2 are not
needed. With ``[2, 0, 3]`` as second row class 0 is needed, but either of its columns can take over: ``[1, 5, -1]`` and
``[2, 0, 3]`` become ``[0, 5]`` and ``[5, 0]`` without channel 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import LEAF, Factor, Positions, labels, leaves
from onnxprune.ir.weights import Flags
from onnxprune.pruning.lossless.affine import merged
from onnxprune.pruning.lossless.hashing import joined

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array, Weight
    from onnxprune.pruning.lossless.affine import Affine
    from onnxprune.pruning.lossless.value_numbering import ValueNumbering

__all__ = ["ColumnCounts", "Columns", "Edit", "Gone", "along", "places"]

Gone = Mapping[Factor, Flags]
"""The positions of each factor that are removed. [size]"""


@dataclass(frozen=True, slots=True)
class Edit:
    """The change of one constant matrix and the biases behind it that makes up for removed positions.

    Attributes:
        forms: the nodes that read the matrix.
        source: columns, by group and place, whose weights others take over. [moves] twice
        target: the places of those others.
        gone: the places that become zero in every group.
        biases: for each node what is added to its output. [g o]
    """

    forms: tuple[Affine, ...]
    source: tuple[Positions, Positions]
    target: Positions
    gone: Positions
    biases: tuple[Array, ...]

    def apply(self, array: Array) -> Array:
        """The constant with its columns moved."""
        result = array.copy()
        columns = np.moveaxis(self.forms[0].view(result), 2, 1)  # [g, i, o, k], a view
        np.add.at(columns, (self.source[0], self.target), columns[self.source])
        columns[:, self.gone] = 0
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of one constant matrix.

    Attributes:
        forms: the nodes that read it; all see it alike.
        constant: the matrix.
        classes: the number of the class of each column. [g, i]
        first: the place of the first column of each class, as groups and columns. [classes] twice
        weighs: whether the weights of a column's class, added up in its first column, are not zero. [g, o, i]
        number: the data of each column where they are one known number, else 0. [nodes, g, i]
        foldable: whether a bias can take over the terms of a column. [g, i]
        inner: the factor of the columns.
        outer: the factor of the rows, groups included.
        places: the columns of each position of each leaf of ``inner``. [leaf, columns of each]
    """

    forms: tuple[Affine, ...]
    constant: Weight
    classes: Positions
    first: tuple[Positions, ...]
    weighs: Flags
    number: Array
    foldable: Flags
    inner: Factor
    outer: Factor
    places: Mapping[Factor, Positions]

    @classmethod
    def of(cls, model: Model, values: ValueNumbering, forms: Sequence[Affine]) -> Columns:
        """Say what is known of the columns of the matrix that these nodes read."""
        form = forms[0]
        constant = model.weights[form.matrix]
        matrix = form.view(constant.array())
        groups, _, ins, _ = matrix.shape
        data = [view for form in forms if (view := values.view(form.node, form.data, form.inner)) is not None]
        digest = joined(*(slices.digest for slices in data), np.repeat(np.arange(groups, dtype=np.uint64), ins))
        first, which = np.unique(digest, return_index=True, return_inverse=True)[1:]
        found = [slices.zero if form.padded else slices.constant for form, slices in zip(forms, data, strict=True)]
        inner = form.node.letters[form.contracted]
        return cls(
            forms=tuple(forms),
            constant=constant,
            classes=which.reshape(groups, ins),
            first=np.unravel_index(first, (groups, ins)),
            weighs=(merged(matrix, digest.reshape(groups, ins)) != 0).any(3),
            number=np.stack([np.where(slices.constant, slices.low, 0).reshape(groups, ins) for slices in data]),
            foldable=np.logical_and.reduce(found).reshape(groups, ins),
            inner=inner,
            outer=form.node.factor((form.outer,)),
            places={leaf: places(inner, leaf) for leaf in dict.fromkeys(leaves(inner))},
        )

    def needed(self, gone: Gone, *, numbers: bool) -> Flags:
        """The classes whose weights in rows that stay are not zero; ``numbers``: even where a bias can take over. [classes]"""
        kept = ~along(self.outer, gone).reshape(self.weighs.shape[:2])
        live: Flags = np.any(self.weighs & kept[..., None], axis=1)
        return (live if numbers else live & ~self.foldable)[self.first]

    def spare(self, leaf: Factor, gone: Gone, *, numbers: bool = False) -> Flags:
        """The positions of a leaf that no sum needs. [n]"""
        return np.asarray(~self.needed(gone, numbers=numbers)[self.classes][:, self.places[leaf]].any((0, 2)))

    def edit(self, gone: Gone) -> Edit | None:
        """Move the terms of what is gone to columns that stay and to biases; ``None`` where there are no terms."""
        lost = along(self.inner, gone)
        rows = ~along(self.outer, gone).reshape(self.weighs.shape[:2])
        matrix = self.forms[0].view(self.constant.array())
        if not (matrix[:, :, lost] != 0).any(3)[rows].any():
            return None
        # added[g, o] = sum over lost columns and taps of matrix[g, o, i, k] * number[g, i]
        added = (matrix[:, :, lost].sum(3, dtype=np.float64) @ (self.number * self.foldable)[:, :, lost, None])[..., 0] * rows
        biases = tuple(sums.reshape(-1) * form.scales[0] for sums, form in zip(added, self.forms, strict=True))
        keepers = np.full(len(self.first[0]), -1)
        kept = np.flatnonzero(~lost)[::-1]
        keepers[self.classes[:, kept]] = kept  # the first that stays is written last
        group, column = np.nonzero(lost & ~self.foldable & (keepers[self.classes] >= 0))
        return Edit(self.forms, (group, column), keepers[self.classes[group, column]], np.flatnonzero(lost), biases)


class ColumnCounts:
    """The number of columns of each class that stay, while positions that have an equal go one by one."""

    def __init__(self, columns: Columns, gone: Gone) -> None:
        self._columns = columns
        self._wanted = columns.needed(gone, numbers=False)
        self._kept = ~along(columns.inner, gone)
        self._counts = np.bincount(columns.classes[:, self._kept].reshape(-1), minlength=len(self._wanted))

    def candidates(self, leaf: Factor) -> Flags:
        """The positions of a leaf of which every column that is needed has an equal. [n]"""
        enough = (self._counts > 1) | ~self._wanted
        return np.asarray(enough[self._columns.classes][:, self._columns.places[leaf]].all((0, 2)))

    def spares(self, leaf: Factor, position: int) -> bool:
        """Say whether every needed class keeps a column if the position goes."""
        return not (self._wanted & (self._without(leaf, position) < 1)).any()

    def take(self, leaf: Factor, position: int) -> None:
        """Let a position go."""
        self._counts = self._without(leaf, position)
        self._kept[self._columns.places[leaf][position]] = False

    def _without(self, leaf: Factor, position: int) -> Positions:
        columns = self._columns.places[leaf][position]
        lost = self._columns.classes[:, columns[self._kept[columns]]].reshape(-1)
        return np.asarray(self._counts - np.bincount(lost, minlength=len(self._counts)))


def places(factor: Factor, leaf: Factor) -> Positions:
    """The positions of a factor that belong to each position of one of its leaves, in order. [leaf, positions of each]"""
    if factor.root is leaf.root and leaf.root.kind == LEAF:
        return np.arange(leaf.size)[:, None]
    found = labels(factor, leaf)
    order = np.argsort(found, kind="stable")
    return order[np.count_nonzero(found < 0) :].reshape(leaf.size, -1)


def along(factor: Factor, gone: Gone) -> Flags:
    """The positions of a factor that go with what is gone. [size]"""
    flags = np.zeros(factor.size, bool)
    for leaf in dict.fromkeys(leaves(factor)):
        if leaf in gone and gone[leaf].any():
            flags[places(factor, leaf)[gone[leaf]]] = True
    return flags
