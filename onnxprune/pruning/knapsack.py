"""Widths from measured errors and exact costs: a multiple-choice knapsack whose items share their prices.

A convolution between two groups costs the product of their widths, so that prices do not add and a dynamic programme over
independent items is not exact. Lagrangian relaxation is used instead: for a price per unit of cost, each group in turn takes the
width that is best given the others', at exact cost; the price is found by bisection. Then one group at a time is made narrower or
wider; the others spend what that frees, or save what it costs, for as long as the error falls.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.pruning.width_search import GroupWidths, Prices, WidthSearch, WidthStep

if TYPE_CHECKING:
    from onnxprune.axes.coupling import CouplingGroup
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.ir.weights import Floats

__all__ = ["Curve", "choose_widths"]

_STEPS = 30
"""Bisection steps of the price: from 24 orders of magnitude to less than a ten-millionth of it."""
_ROUNDS = 30
"""Rounds over all groups until none moves; where two groups alternate, this ends it."""
_CHOICES = 24
"""Widths of one group that the relaxation looks at; the others are there to spend what is left."""
_TRIALS = 200_000
"""Widths that exchanges price, about; then the best so far has to do. It bounds the seconds that a large model takes."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The error that each width of a group costs.

    Attributes:
        order: its positions in the order in which they go. [size]
        error: the predicted divergence of the model's outputs after so many have gone; ascending from 0. [size + 1]
        measured: the divergence that was measured, by the number of positions kept.
    """

    order: Positions
    error: Floats
    measured: Mapping[int, float]

    def keep(self, width: int) -> Positions:
        """The positions that remain at a width, ascending."""
        return np.sort(self.order[len(self.order) - width :])


def choose_widths(
    groups: Sequence[CouplingGroup],
    curves: Mapping[str, Curve],
    allowed: Mapping[str, Sequence[int]],
    prices: Prices,
    budget: float,
) -> dict[str, int] | None:
    """The widths with the least sum of errors whose price is within the budget; ``None`` if even the least cost more."""
    found = _CurveSearch(groups, curves, allowed, prices, budget).run()
    return None if found is None else {group.id: found[group.factor] for group in groups}


class _CurveSearch(WidthSearch):
    """The least sum of errors: Lagrangian relaxation, then exchanges."""

    farthest = sys.maxsize

    def __init__(
        self,
        groups: Sequence[CouplingGroup],
        curves: Mapping[str, Curve],
        allowed: Mapping[str, Sequence[int]],
        prices: Prices,
        budget: float,
    ) -> None:
        super().__init__({group.factor: allowed[group.id] for group in groups}, prices, budget)
        self.errors = {group.factor: curves[group.id].error[group.size - np.array(allowed[group.id])] for group in groups}
        self.coarse = {factor: _thinned(widths) for factor, widths in self.allowed.items()}
        self.trials = _TRIALS

    def run(self) -> GroupWidths | None:
        if self.prices.total(self.least) > self.budget:
            return None
        whole = {factor: widths[-1] for factor, widths in self.allowed.items()}
        found = self.within(lambda power: self._relaxed(10**power, whole), -12.0, 12.0, _STEPS)
        best: GroupWidths = min(found, key=self._error)
        return self._exchange(self.fill(dict(best)))

    def loss(self, factor: Factor, present: int, place: int) -> float:
        return float(self.errors[factor][place] - self.errors[factor][present])

    def gain(self, step: WidthStep, counts: GroupWidths) -> tuple[float] | None:
        return (-step.loss / max(step.price, 1e-30),) if step.loss <= 0 else None

    def harm(self, step: WidthStep, over: float) -> tuple[float]:
        return (step.loss / min(-step.price, over),)

    def steps(self, counts: GroupWidths, direction: int, held: Factor | None = None) -> list[WidthStep]:
        found = super().steps(counts, direction, held)
        self.trials -= len(found)
        return found

    def _error(self, counts: GroupWidths) -> float:
        return sum(self._at(factor, count) for factor, count in counts.items())

    def _at(self, factor: Factor, count: int) -> float:
        return float(self.errors[factor][bisect_left(self.allowed[factor], count)])

    def _relaxed(self, price: float, start: GroupWidths) -> GroupWidths:
        """The width of each group with the least ``error + price * cost / budget``, given the others', until none moves."""
        counts = dict(start)
        for _ in range(_ROUNDS):
            moved = False
            for factor, widths in self.coarse.items():
                errors = [self._at(factor, width) for width in widths]
                paid = np.array(self.changes(counts, factor, widths)) / self.budget
                best = widths[int(np.argmin(np.array(errors) + price * paid))]
                moved |= best != counts[factor]
                counts[factor] = best
            if not moved:
                break
        return counts

    def _exchange(self, counts: GroupWidths) -> GroupWidths:
        """Change one group and let others make up for it, for as long as the error falls."""
        error, improved = self._error(counts), True
        while improved:
            improved = False
            for step in (*self.steps(counts, -1), *self.steps(counts, 1)):
                if self.trials <= 0:
                    return counts
                trial = self.save({**counts, step.factor: step.width}, step.factor)
                trial = trial and self.fill(self.fill(trial, step.factor))
                if trial and self._error(trial) < error:
                    counts, error, improved = trial, self._error(trial), True
        return counts


def _thinned(widths: Sequence[int]) -> list[int]:
    """At most so many widths, evenly, both ends among them."""
    at = np.unique(np.linspace(0, len(widths) - 1, min(_CHOICES, len(widths))).round().astype(int))
    return [widths[i] for i in at]
