"""Widths from what each costs and what each buys: a multiple-choice knapsack whose items share their prices.

A convolution between two groups costs the product of their widths, so that prices do not add and a dynamic programme over
independent items is not exact. Lagrangian relaxation is used instead: for a price per unit of cost, each group in turn takes the
width that is best given the others', at exact cost; the price is found by bisection. Then one group at a time is made narrower or
wider, and what that frees is spent on others, or what it costs is saved on them, for as long as the error falls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import Factor

if TYPE_CHECKING:
    from onnxprune.axes.coupling import CouplingGroup
    from onnxprune.axes.factors import Positions

__all__ = ["Curve", "Prices", "choose"]

Scores = npt.NDArray[np.float64]
_STEPS = 30
"""Bisection steps, over twelve orders of magnitude."""
_ROUNDS = 30
_CHOICES = 24
"""Widths of one group that the relaxation looks at; the others are there to spend what is left."""
_TRIALS = 200_000
"""Widths that exchanges price, about; then the best so far has to do."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a group loses.

    Attributes:
        order: its positions in the order in which they go. [size]
        error: the predicted divergence of the model's outputs after so many have gone; ascending from 0. [size + 1]
        measured: the divergence that was measured, by the number of positions kept.
    """

    order: Positions
    error: Scores
    measured: Mapping[int, float]

    def keep(self, width: int) -> Positions:
        """The positions that remain at a width, ascending."""
        return np.sort(self.order[len(self.order) - width :])


class Prices(Protocol):
    """What a model costs under widths."""

    def total(self, counts: Mapping[Factor, int]) -> float: ...
    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float: ...
    def sharing(self, factor: Factor) -> Collection[Factor]: ...


def choose(
    groups: Sequence[CouplingGroup],
    curves: Mapping[str, Curve],
    allowed: Mapping[str, Sequence[int]],
    prices: Prices,
    budget: float,
) -> dict[str, int] | None:
    """The widths with the least sum of errors whose price is within the budget; ``None`` if even the least cost more."""
    search = _Search(groups, curves, allowed, prices, budget)
    return search.run()


@dataclass(frozen=True, slots=True)
class _Step:
    """Another width of one group, and what that changes."""

    factor: Factor
    width: int
    error: float
    price: float


class _Search:
    def __init__(
        self,
        groups: Sequence[CouplingGroup],
        curves: Mapping[str, Curve],
        allowed: Mapping[str, Sequence[int]],
        prices: Prices,
        budget: float,
    ) -> None:
        self.groups = {group.factor: group for group in groups}
        self.allowed = {group.factor: allowed[group.id] for group in groups}
        self.errors = {group.factor: curves[group.id].error[group.size - np.array(allowed[group.id])] for group in groups}
        self.coarse = {factor: _thinned(widths) for factor, widths in self.allowed.items()}
        self.prices, self.budget = prices, budget
        self.trials = _TRIALS
        self._near = {
            factor: tuple(other for other in prices.sharing(factor) if other in self.allowed) for factor in self.allowed
        }
        self._known: dict[tuple[Factor, tuple[int, ...]], dict[int, float]] = {}

    def run(self) -> dict[str, int] | None:
        least = {factor: widths[0] for factor, widths in self.allowed.items()}
        whole = {factor: widths[-1] for factor, widths in self.allowed.items()}
        if self.prices.total(least) > self.budget:
            return None
        best, low, high = least, -12.0, 12.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            counts = self._settle(10**middle, whole)
            if self.prices.total(counts) <= self.budget:
                high = middle
                best = min(best, counts, key=self._error)
            else:
                low = middle
        best = self._exchange(self._fill(dict(best)))
        return {self.groups[factor].id: count for factor, count in best.items()}

    def _error(self, counts: Mapping[Factor, int]) -> float:
        return sum(self._at(factor, count) for factor, count in counts.items())

    def _at(self, factor: Factor, count: int) -> float:
        return float(self.errors[factor][bisect_left(self.allowed[factor], count)])

    def _changes(self, counts: dict[Factor, int], factor: Factor, widths: Sequence[int]) -> list[float]:
        """How the price changes when one group takes each of some widths.

        That depends on the widths of the few groups that share layers with it, and exchanges pass by the same ones often.
        """
        present, near = counts[factor], tuple([counts[other] for other in self._near[factor]])
        known = self._known.setdefault((factor, near), {})
        missing = [width for width in (*widths, present) if width not in known]
        counts[factor] = self.allowed[factor][0]
        for width in missing:
            known[width] = self.prices.change(counts, factor, width)
        counts[factor] = present
        return [known[width] - known[present] for width in widths]

    def _settle(self, price: float, start: Mapping[Factor, int]) -> dict[Factor, int]:
        """Each group's best width at a price per share of the budget, given the others', until none moves."""
        counts = dict(start)
        for _ in range(_ROUNDS):
            moved = False
            for factor, widths in self.coarse.items():
                errors = [self._at(factor, width) for width in widths]
                paid = np.array(self._changes(counts, factor, widths)) / self.budget
                best = widths[int(np.argmin(np.array(errors) + price * paid))]
                moved |= best != counts[factor]
                counts[factor] = best
            if not moved:
                break
        return counts

    def _steps(self, counts: dict[Factor, int], direction: int, held: Factor | None = None) -> list[_Step]:
        """For each group but one its widths up or down, one, two, four ... steps away."""
        found = []
        for factor, widths in self.allowed.items():
            if factor is held:
                continue
            at, step, places = bisect_left(widths, counts[factor]), direction, []
            while 0 <= at + step < len(widths):
                places.append(at + step)
                step *= 2
            near, errors = [widths[place] for place in places], self.errors[factor]
            for place, width, price in zip(places, near, self._changes(counts, factor, near), strict=True):
                found.append(_Step(factor, width, float(errors[place] - errors[at]), price))
        self.trials -= len(found)
        return found

    def _fill(self, counts: dict[Factor, int], held: Factor | None = None) -> dict[Factor, int]:
        """Spend what is left where it lowers the error most for its price."""
        room = self.budget - self.prices.total(counts)
        while True:
            steps = [step for step in self._steps(counts, 1, held) if step.price <= room and step.error <= 0]
            if not steps:
                return counts
            best = min(steps, key=lambda step: step.error / max(step.price, 1e-30))
            counts[best.factor] = best.width
            room = self.budget - self.prices.total(counts)

    def _save(self, counts: dict[Factor, int], held: Factor) -> dict[Factor, int] | None:
        """Save what is spent beyond the budget where it raises the error least for its price; ``None`` if it cannot be saved."""
        while (over := self.prices.total(counts) - self.budget) > 0:
            steps = [step for step in self._steps(counts, -1, held) if step.price < 0]
            if not steps:
                return None
            best = min(steps, key=lambda step: step.error / min(-step.price, over))
            counts[best.factor] = best.width
        return counts

    def _exchange(self, counts: dict[Factor, int]) -> dict[Factor, int]:
        """Change one group and let others make up for it, for as long as the error falls."""
        error, improved = self._error(counts), True
        while improved:
            improved = False
            for step in (*self._steps(counts, -1), *self._steps(counts, 1)):
                if self.trials <= 0:
                    return counts
                trial = self._save({**counts, step.factor: step.width}, step.factor)
                trial = trial and self._fill(self._fill(trial, step.factor))
                if trial and self._error(trial) < error:
                    counts, error, improved = trial, self._error(trial), True
        return counts


def _thinned(widths: Sequence[int]) -> list[int]:
    """At most so many widths, evenly, both ends among them."""
    at = np.unique(np.linspace(0, len(widths) - 1, min(_CHOICES, len(widths))).round().astype(int))
    return [widths[i] for i in at]
