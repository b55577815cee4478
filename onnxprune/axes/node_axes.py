"""A node of a graph with its rule, and the factors that stand for the letters of the rule there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.axes.equation import Axis, AxisRule, Equation
from onnxprune.axes.factors import Factor, direct_sum, length, product

if TYPE_CHECKING:
    from onnxprune.ir.control_flow import Path
    from onnxprune.ir.node import NodeView

__all__ = ["NodeAxes", "compose"]


def compose(axis: Axis, letters: Mapping[str, Factor]) -> Factor:
    """The factor of an axis expression: ``(g o)`` is the product of the factors of ``g`` and ``o``, ``(a+b)`` their sum."""
    return direct_sum([product([letters[f] for f in block]) for block in axis])


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
