"""Find the positions that can go while the model computes the same: dead ones, constant ones, duplicates of others.

A position of a group may go if no sum over the group needs its terms: they are zero (the readers' weights are, or
the activation is), or a known number (which a bias takes over), or equal to the terms of a position that stays (whose weights
take them over). What is equal and what is constant is found in one walk forward (`value_numbering`); a position whose readers are
themselves removed is found by repeating the search backward until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import leaves
from onnxprune.ir.node import is_followed
from onnxprune.pruning.allocation import widths
from onnxprune.pruning.lossless.columns import ColumnCounts, Columns, Edit, places
from onnxprune.pruning.lossless.value_numbering import OPAQUE, ValueNumbering

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Flags
    from onnxprune.options.targets import Align
    from onnxprune.pruning.lossless.affine import Affine

__all__ = ["REMOVAL_KINDS", "Removal", "search"]

REMOVAL_KINDS = ("dead", "constant", "duplicated")
"""The reasons why a position can go: no sum needs it; a bias takes over; a position that is equal takes over."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Everything that can go together.

    Attributes:
        gone: for each group that loses positions, those: ascending.
        counts: how many positions go for each of the `REMOVAL_KINDS` of reasons.
        edits: what takes over their terms.
    """

    gone: Mapping[str, Positions]
    counts: Mapping[str, int]
    edits: tuple[Edit, ...]

    def keep(self, coupling: Coupling, align: Align) -> dict[str, Positions]:
        """The positions of each group that stay; some that could go fill its width up to a multiple of ``align``."""
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
    return _RemovalSearch(model, coupling).run()


class _RemovalSearch:
    """Positions that are gone, and the readers that decide about more."""

    def __init__(self, model: Model, coupling: Coupling) -> None:
        self.groups = {group.factor: group for group in coupling.groups if group.exact}
        self.gone: dict[Factor, Flags] = {factor: np.zeros(factor.size, bool) for factor in self.groups}
        self.kinds = {kind: {factor: np.zeros(factor.size, bool) for factor in self.groups} for kind in REMOVAL_KINDS}
        self.columns: dict[Factor, list[Columns]] = {factor: [] for factor in self.groups}
        self.others = {factor: np.ones(factor.size, bool) for factor in self.groups}
        self.last = dict.fromkeys(self.groups, 0)
        """The last node that sums over a group."""
        values = ValueNumbering(model, coupling)
        shared = _by_matrix(model, values)
        for node in coupling.nodes:
            self._add(model, values, node, shared)

    def _add(self, model: Model, values: ValueNumbering, node: NodeAxes, shared: Mapping[str, Sequence[Affine]]) -> None:
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
                    matrix = Columns.of(model, values, shared[form.matrix])
                    for leaf in found:
                        self.columns[leaf].append(matrix)
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
        for matrix in self.columns[factor]:
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
        counts = {id(columns): ColumnCounts(columns, self.gone) for columns in self._all()}
        for factor, readers in self.columns.items():
            gone, counted = self.gone[factor], [counts[id(columns)] for columns in readers]
            candidates = self.others[factor] & ~gone
            for columns in counted:
                candidates &= columns.candidates(factor)
            for position in np.flatnonzero(candidates)[::-1]:  # few; each changes what the next may do
                if np.count_nonzero(~gone) == 1 or not all(columns.spares(factor, position) for columns in counted):
                    continue
                gone[position] = self.kinds["duplicated"][factor][position] = True
                for columns in counted:
                    columns.take(factor, position)

    def _all(self) -> Iterable[Columns]:
        return {id(matrix): matrix for found in self.columns.values() for matrix in found}.values()


def _by_matrix(model: Model, values: ValueNumbering) -> dict[str, list[Affine]]:
    """The nodes that read each constant matrix, where all of its readers are such nodes and see it alike."""
    found: dict[str, list[Affine]] = {}
    for form in values.affine.values():
        found.setdefault(form.matrix, []).append(form)
    consumers = model.consumers()
    return {
        name: forms for name, forms in found.items() if len(consumers[name]) == len(forms) and len({f.layout for f in forms}) == 1
    }
