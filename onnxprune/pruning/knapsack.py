"""Widths from measured errors and exact costs: a multiple-choice knapsack whose items share their prices.

A convolution between two groups costs the product of their widths, so that prices do not add and a dynamic programme over
independent items is not exact. Lagrangian relaxation is used instead: for a price per unit of cost, each group in turn takes the
width that is best given the others', at exact cost; the price is found by bisection. Then one group at a time is made narrower or
wider; the others spend what that frees, or save what it costs, for as long as the error falls.

Where kernels count, what they compute is paid for as well: at the price that relaxation finds for the budget, times a worth.
Of a narrow layer they compute whole blocks of channels, so that part of a block is only taken away where that loses little. A
worth of 0 is the least error, an infinite one the least error for the time.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.pruning.width_search import (
    GroupWidths,
    PriceChanges,
    Prices,
    TargetPrices,
    WidthSearch,
    WidthStep,
    settled,
    thinned,
)

if TYPE_CHECKING:
    from onnxprune.axes.coupling import CouplingGroup
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.ir.weights import Floats

__all__ = ["Curve", "choose_widths"]

_STEPS = 30
"""Bisection steps of the price: from 24 orders of magnitude to less than a ten-millionth of it."""
_WORTH = 0.5
"""The worth of a share of what kernels compute, beside one of what the target counts."""
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
    kernels: TargetPrices | None = None,
) -> dict[str, int] | None:
    """The widths with the least sum of errors whose price is within the budget; ``None`` if even the least cost more.

    Args:
        groups: that are cut.
        curves: the errors of each group, by group id.
        allowed: the widths of each group, ascending.
        prices: the cost under widths.
        budget: the most that widths may cost.
        kernels: what kernels compute, which is paid for beside the price; ``None`` where it does not count.
    """
    found = _CurveSearch(groups, curves, allowed, prices, budget, kernels).run()
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
        kernels: TargetPrices | None,
    ) -> None:
        super().__init__({group.factor: allowed[group.id] for group in groups}, prices, budget)
        self.kernels = _Kernels(kernels, self.allowed, prices.total({}) / budget) if kernels else None
        self.price = 0.0
        self.errors = {group.factor: curves[group.id].error[group.size - np.array(allowed[group.id])] for group in groups}
        self.coarse = {factor: thinned(widths) for factor, widths in self.allowed.items()}
        self.trials = _TRIALS

    def run(self) -> GroupWidths | None:
        if self.prices.total(self.least) > self.budget:
            return None
        whole = {factor: widths[-1] for factor, widths in self.allowed.items()}
        found = self.within(lambda power: self._relaxed(10**power, whole), -12.0, 12.0, _STEPS)
        self.price = 10 ** found[-1][0] if len(found) > 1 else 0.0
        best: GroupWidths = min((counts for _, counts in found), key=self._lost)
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
        if not self.kernels or not self.price:
            return found
        return [
            replace(step, loss=step.loss + self.price * self.kernels.changes(counts, step.factor, [step.width])[0])
            for step in found
        ]

    def _lost(self, counts: GroupWidths) -> float:
        """The sum of errors, with what kernels compute at its price."""
        error = sum(self._at(factor, count) for factor, count in counts.items())
        return error + self.price * self.kernels.total(counts) if self.kernels else error

    def _at(self, factor: Factor, count: int) -> float:
        return float(self.errors[factor][bisect_left(self.allowed[factor], count)])

    def _relaxed(self, price: float, start: GroupWidths) -> GroupWidths:
        """The width of each group with the least ``error + price * cost / budget``, given the others', until none moves."""

        def choose(counts: GroupWidths, factor: Factor) -> int:
            widths = self.coarse[factor]
            errors = [self._at(factor, width) for width in widths]
            paid = np.array(self.changes(counts, factor, widths)) / self.budget
            if self.kernels:
                paid += self.kernels.changes(counts, factor, widths)
            return widths[int(np.argmin(np.array(errors) + price * paid))]

        return settled(start, choose)

    def _exchange(self, counts: GroupWidths) -> GroupWidths:
        """Change one group and let others make up for it, for as long as less is lost."""
        lost, improved = self._lost(counts), True
        while improved:
            improved = False
            for step in (*self.steps(counts, -1), *self.steps(counts, 1)):
                if self.trials <= 0:
                    return counts
                trial = self.save({**counts, step.factor: step.width}, step.factor)
                trial = trial and self.fill(self.fill(trial, step.factor))
                if trial and self._lost(trial) < lost:
                    counts, lost, improved = trial, self._lost(trial), True
        return counts


class _Kernels:
    """What kernels compute under widths, in shares of the budget, times its worth."""

    def __init__(self, prices: TargetPrices, allowed: Mapping[Factor, Sequence[int]], share: float) -> None:
        """Count what kernels compute.

        Args:
            prices: of it.
            allowed: the widths of each group.
            share: the cost of the whole model, in budgets.
        """
        self._prices, self._changes, self._worth = prices, PriceChanges(prices, allowed), _WORTH * share / prices.whole

    def total(self, counts: GroupWidths) -> float:
        return self._worth * self._prices.total(counts)

    def changes(self, counts: GroupWidths, factor: Factor, widths: Sequence[int]) -> Floats:
        """The growth when one group takes each of some widths. Returns float64 [widths]."""
        return self._worth * np.array(self._changes(counts, factor, widths))
