"""Which positions can go without changing what the model computes: dead ones, constant ones, duplicates of others.

A position of a group may go if every sum over the group can do without its terms: they are zero (the readers' weights are, or
the activation is), or a known number (which a bias takes over), or equal to the terms of a position that stays (whose weights
take them over). What is equal and what is constant is found in one walk forward (`values`); a position whose readers are
themselves removed is found by repeating the search backward until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import LEAF, Factor, Positions, labels, leaves
from onnxprune.ir.node import is_followed
from onnxprune.ir.weights import Flags
from onnxprune.pruning.allocation import widths
from onnxprune.pruning.lossless.affine import merged
from onnxprune.pruning.lossless.hashing import joined
from onnxprune.pruning.lossless.value_numbering import OPAQUE, Values

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.options.prune import Align
    from onnxprune.pruning.lossless.affine import Affine

__all__ = ["KINDS", "Edit", "Removal", "search"]

Gone = Mapping[Factor, Flags]

KINDS = ("dead", "constant", "duplicated")


@dataclass(frozen=True, slots=True)
class Edit:
    """What takes over the terms of removed positions, in one constant matrix and the biases behind it.

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


@dataclass(frozen=True, slots=True)
class Removal:
    """Everything that can go together.

    Attributes:
        gone: for each group that loses positions, those: ascending.
        counts: how many positions go for each of the `KINDS` of reasons.
        edits: what takes over their terms.
    """

    gone: Mapping[str, Positions]
    counts: Mapping[str, int]
    edits: tuple[Edit, ...]

    def keep(self, coupling: Coupling, align: Align) -> dict[str, Positions]:
        """For each group what stays, with as much of what can go as makes its width a multiple of ``align``."""
        found = {}
        for group in coupling.groups:
            gone = self.gone.get(group.id, np.empty(0, np.int64))
            least = group.size - len(gone)
            width = min(width for width in widths(group, coupling, align, floor=0) if width >= least)
            if width < group.size:
                found[group.id] = np.delete(np.arange(group.size), gone[width - least :])
        return found


def search(model: Model, coupling: Coupling) -> Removal:
    """Find everything that can go from the exact groups of a graph, at least one position of each staying.

    Groups that run through bodies of control flow are left alone: what a loop carries is not followed round it.

    Raises:
        ModelError: weights that are not finite.
    """
    bodies = {place for place, node in enumerate(model.graph.node) if is_followed(node)}
    if bodies:
        nodes = tuple(node for node in coupling.nodes if node.index not in bodies)
        inside = (node for node in coupling.nodes if node.index in bodies)
        touched = {leaf for node in inside for factor in node.letters.values() for leaf in leaves(factor)}
        groups = tuple(group for group in coupling.groups if group.factor not in touched)
        coupling = replace(coupling, groups=groups, nodes=nodes)
    return _Search(model, coupling).run()


class _Matrix:
    """A constant matrix as a reader: the terms of each position are its columns times the data.

    Columns of one class, in one group of channels, are multiplied with equal data: what counts is the sum of their weights.
    """

    def __init__(self, model: Model, values: Values, forms: Sequence[Affine]) -> None:
        form = forms[0]
        self.forms, self.constant = tuple(forms), model.weights[form.matrix]
        matrix = form.view(self.constant.array())
        groups, _, ins, _ = matrix.shape
        data = [view for form in forms if (view := values.view(form.node, form.data, form.inner)) is not None]
        digest = joined(*(slices.digest for slices in data), np.repeat(np.arange(groups, dtype=np.uint64), ins))
        first, which = np.unique(digest, return_index=True, return_inverse=True)[1:]
        self.classes: Positions = which.reshape(groups, ins)
        self.weighs: Flags = (merged(matrix, digest.reshape(groups, ins)) != 0).any(3)
        self.first = np.unravel_index(first, (groups, ins))
        self.number = np.stack([np.where(slices.constant, slices.low, 0).reshape(groups, ins) for slices in data])
        found = [slices.zero if form.padded else slices.constant for form, slices in zip(forms, data, strict=True)]
        self.foldable: Flags = np.logical_and.reduce(found).reshape(groups, ins)
        self.inner, self.outer = form.node.letters[form.contracted], form.node.factor((form.outer,))
        self.places = {leaf: places(self.inner, leaf) for leaf in dict.fromkeys(leaves(self.inner))}

    def needed(self, gone: Gone, *, numbers: bool) -> Flags:
        """Classes whose weights in rows that stay are not zero; ``numbers``: even where a bias can take over. [classes]"""
        kept = ~along(self.outer, gone).reshape(self.weighs.shape[:2])
        live: Flags = np.any(self.weighs & kept[..., None], axis=1)
        return (live if numbers else live & ~self.foldable)[self.first]

    def spare(self, leaf: Factor, gone: Gone, *, numbers: bool = False) -> Flags:
        """Positions of a leaf that no sum needs. [n]"""
        return np.asarray(~self.needed(gone, numbers=numbers)[self.classes][:, self.places[leaf]].any((0, 2)))

    # Positions that others can take over.

    def count(self, gone: Gone) -> None:
        """Count the columns of each class that stay."""
        self.wanted = self.needed(gone, numbers=False)
        self.kept = ~along(self.inner, gone)
        self.counts = np.bincount(self.classes[:, self.kept].reshape(-1), minlength=len(self.wanted))

    def candidates(self, leaf: Factor) -> Flags:
        """Positions of a leaf of which every column that is needed has an equal. [n]"""
        enough = (self.counts > 1) | ~self.wanted
        return np.asarray(enough[self.classes][:, self.places[leaf]].all((0, 2)))

    def spares(self, leaf: Factor, position: int) -> bool:
        """Whether a position still is such a one."""
        return not (self.wanted & (self._without(leaf, position) < 1)).any()

    def take(self, leaf: Factor, position: int) -> None:
        """Let a position go."""
        self.counts = self._without(leaf, position)
        self.kept[self.places[leaf][position]] = False

    def _without(self, leaf: Factor, position: int) -> Positions:
        columns = self.places[leaf][position]
        lost = self.classes[:, columns[self.kept[columns]]].reshape(-1)
        return np.asarray(self.counts - np.bincount(lost, minlength=len(self.counts)))

    # The rewrite.

    def edit(self, gone: Gone) -> Edit | None:
        """What takes over the terms of what is gone; ``None`` where there are none."""
        lost = along(self.inner, gone)
        rows = ~along(self.outer, gone).reshape(self.weighs.shape[:2])
        matrix = self.forms[0].view(self.constant.array())
        if not (matrix[:, :, lost] != 0).any(3)[rows].any():
            return None
        added = (matrix[:, :, lost].sum(3, dtype=np.float64) @ (self.number * self.foldable)[:, :, lost, None])[..., 0] * rows
        biases = tuple(sums.reshape(-1) * form.scales[0] for sums, form in zip(added, self.forms, strict=True))
        keepers = np.full(len(self.first[0]), -1)
        kept = np.flatnonzero(~lost)[::-1]
        keepers[self.classes[:, kept]] = kept  # the first that stays is written last
        group, column = np.nonzero(lost & ~self.foldable & (keepers[self.classes] >= 0))
        return Edit(self.forms, (group, column), keepers[self.classes[group, column]], np.flatnonzero(lost), biases)


class _Search:
    """Positions that are gone, and the readers that decide about more."""

    def __init__(self, model: Model, coupling: Coupling) -> None:
        self.groups = {group.factor: group for group in coupling.groups if group.exact}
        self.gone: dict[Factor, Flags] = {factor: np.zeros(factor.size, bool) for factor in self.groups}
        self.kinds = {kind: {factor: np.zeros(factor.size, bool) for factor in self.groups} for kind in KINDS}
        self.matrices: dict[Factor, list[_Matrix]] = {factor: [] for factor in self.groups}
        self.others = {factor: np.ones(factor.size, bool) for factor in self.groups}
        self.last = dict.fromkeys(self.groups, 0)
        """The last node that sums over a group."""
        values = Values(model, coupling)
        shared = _by_matrix(model, values)
        for node in coupling.nodes:
            self._add(model, values, node, shared)

    def _add(self, model: Model, values: Values, node: NodeAxes, shared: Mapping[str, Sequence[Affine]]) -> None:
        """Note what a node sums over."""
        form = values.affine.get(node.index)
        opaque = (node.view.domain, node.view.op) in OPAQUE
        letters = node.letters.keys() if opaque else node.equation.contracted | node.rule.sums
        for letter in letters & node.equation.carriers.keys() - node.rule.mix - node.rule.fixed:
            found = [leaf for leaf in dict.fromkeys(leaves(node.letters[letter])) if leaf in self.groups]
            if not found:
                continue
            self.last |= dict.fromkeys(found, node.index)
            if form is not None and letter == form.contracted and form.matrix in shared:
                if shared[form.matrix][0] is form:
                    matrix = _Matrix(model, values, shared[form.matrix])
                    for leaf in found:
                        self.matrices[leaf].append(matrix)
                continue
            passes = opaque and letter not in node.equation.contracted
            zero = values.zero(node, (letter,)) if passes else values.drops_out(node, letter)
            for leaf in found:
                self.others[leaf] &= zero[places(node.letters[letter], leaf)].all(1)

    def run(self) -> Removal:
        order = sorted(self.groups, key=self.last.__getitem__, reverse=True)
        found = True
        while found:  # readers that go make others dead
            found = sum(self._spare(factor) for factor in order) > 0
        self._merge()
        edits = (matrix.edit(self.gone) for matrix in self._all())
        counts = {kind: sum(int(flags.sum()) for flags in found.values()) for kind, found in self.kinds.items()}
        gone = {group.id: np.flatnonzero(self.gone[factor]) for factor, group in self.groups.items() if self.gone[factor].any()}
        return Removal(gone, counts, tuple(edit for edit in edits if edit is not None))

    def _spare(self, factor: Factor) -> bool:
        """Remove what no reader needs; whether there was anything."""
        new = self.others[factor] & ~self.gone[factor]
        idle = new.copy()
        for matrix in self.matrices[factor]:
            if not new.any():
                return False
            new &= matrix.spare(factor, self.gone)
            idle &= matrix.spare(factor, self.gone, numbers=True)
        if (new | self.gone[factor]).all():
            new[np.argmax(~self.gone[factor])] = False
        self.gone[factor] |= new
        self.kinds["dead"][factor] |= new & idle
        self.kinds["constant"][factor] |= new & ~idle
        return bool(new.any())

    def _merge(self) -> None:
        """Remove what equals, for every reader, something that stays."""
        for matrix in self._all():
            matrix.count(self.gone)
        for factor, matrices in self.matrices.items():
            gone = self.gone[factor]
            candidates = self.others[factor] & ~gone
            for matrix in matrices:
                candidates &= matrix.candidates(factor)
            for position in np.flatnonzero(candidates)[::-1]:  # few; each changes what the next may do
                if np.count_nonzero(~gone) == 1 or not all(matrix.spares(factor, position) for matrix in matrices):
                    continue
                gone[position] = self.kinds["duplicated"][factor][position] = True
                for matrix in matrices:
                    matrix.take(factor, position)

    def _all(self) -> Iterable[_Matrix]:
        return {id(matrix): matrix for found in self.matrices.values() for matrix in found}.values()


def _by_matrix(model: Model, values: Values) -> dict[str, list[Affine]]:
    """The nodes that read each constant matrix, where all of its readers are such nodes and see it alike."""
    found: dict[str, list[Affine]] = {}
    for form in values.affine.values():
        found.setdefault(form.matrix, []).append(form)
    consumers = model.consumers()
    return {
        name: forms for name, forms in found.items() if len(consumers[name]) == len(forms) and len({f.layout for f in forms}) == 1
    }


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
