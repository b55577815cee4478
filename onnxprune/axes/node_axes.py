"""A node of a graph with its rule, and the factors that stand for the letters of the rule there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.axes.equation import Axis, AxisRule, Equation
from onnxprune.axes.factors import Factor, Positions, direct_sum, fix, index, length, product
from onnxprune.axes.unification import pick, unify

if TYPE_CHECKING:
    from onnxprune.ir.control_flow import Path
    from onnxprune.ir.node import NodeView
    from onnxprune.ir.weights import Array

__all__ = ["NodeAxes", "compose", "pick_listed"]


def compose(axis: Axis, letters: Mapping[str, Factor]) -> Factor:
    """The factor of an axis expression: ``(g o)`` is the product of the factors of ``g`` and ``o``, ``(a+b)`` their sum."""
    return direct_sum([product([letters[f] for f in block]) for block in axis])


def pick_listed(equation: Equation, letters: Mapping[str, Factor], lists: Mapping[int, Array], why: object) -> None:
    """State of each axis that picks positions which those are.

    Args:
        equation: of a node.
        letters: its factors.
        lists: the inputs that may be written anew, by position; what another one lists stays.
        why: the reason of what must stay.
    """
    for letter, (source, at) in equation.picks.items():
        if at not in lists:
            for name in letters.keys() & {letter, source}:
                fix(letters[name], why)
        elif source in letters:
            positions = lists[at].reshape(-1).astype(np.int64) % letters[source].size
            unify(letters[letter], pick(letters[source], positions, why), why)


@dataclass(frozen=True, slots=True)
class NodeAxes:
    """A node, its rule, and the factors that stand for the letters of its equation in this graph."""

    index: int
    """Its place in the graph's list of nodes; of what is in a body, or passes into or out of one, the outermost node's."""
    view: NodeView
    rule: AxisRule
    equation: Equation
    """The rule's, with `...` expanded."""
    letters: Mapping[str, Factor]
    sizes: Mapping[str, int]
    inside: Path = ()
    """The way to it from there, see `onnxprune.ir.control_flow.Path`."""

    def factor(self, axis: Axis) -> Factor:
        """The factor of an axis written in the letters of the rule."""
        return compose(axis, self.letters)

    def relisted(self, lists: Mapping[int, Array], keep: Mapping[Factor, Positions]) -> dict[int, Array]:
        """The inputs that list positions, without those that go, in the numbers that the others then have."""
        found = {}
        for letter, (source, at) in self.equation.picks.items():
            positions = lists[at][index(self.letters[letter], keep)]
            if source in self.letters:
                stays = index(self.letters[source], keep)
                positions = np.searchsorted(stays, positions % self.letters[source].size).astype(positions.dtype)
            found[at] = positions
        return found

    def respelled(self, counts: Mapping[Factor, int]) -> dict[str, Any]:
        """The attributes to write under some widths: those that spell a width that changes, and literals."""
        found = {}
        for name, spelled in self.rule.attrs.items():
            value = self._respell(spelled, counts)
            if value != self._respell(spelled, {}) or not isinstance(spelled, tuple | list):
                found[name] = value
        return found

    def _respell(self, spelled: Any, counts: Mapping[Factor, int]) -> Any:
        if isinstance(spelled, list):
            return [self._respell(item, counts) for item in spelled]
        return length(self.factor(spelled), counts) if isinstance(spelled, tuple) else spelled
