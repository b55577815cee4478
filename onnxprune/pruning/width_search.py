"""Widths under a budget: the steps that one group can take, and the greedy ways to spend what is left or to save an excess.

Both allocators search like this: `allocation` for the least loss of scores, `knapsack` for the least sum of measured errors. They
differ in what a step costs in accuracy and in which step they take first.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from onnxprune.axes.factors import Factor

__all__ = ["GroupWidths", "PriceChanges", "Prices", "TargetPrices", "WidthSearch", "WidthStep", "cheapest", "settled", "thinned"]

_CHOICES = 24
"""Widths of one group that are looked at where all would be many."""
_ROUNDS = 30
"""Rounds over all groups until none moves; where two groups alternate, this ends it."""

GroupWidths = dict["Factor", int]
"""The width of every group, by its factor."""


class Prices(Protocol):
    """The cost of a model as a function of widths."""

    def total(self, counts: Mapping[Factor, int]) -> float:
        """The cost when each factor keeps that many positions (others: all)."""

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        """The growth of the cost when one factor goes from its present count to ``count``."""

    def sharing(self, factor: Factor) -> Collection[Factor]:
        """The other factors on whose widths the price of this one depends."""


class TargetPrices(Prices, Protocol):
    """The cost of a model that a target is about."""

    @property
    def whole(self) -> float:
        """What the target is a fraction of."""


@dataclass(frozen=True, slots=True)
class WidthStep:
    """Another width of one group.

    Attributes:
        factor: the group's.
        width: the other width.
        loss: by how much the loss grows; negative where the group gets wider.
        price: by how much the cost grows; negative where the group gets narrower.
    """

    factor: Factor
    width: int
    loss: float
    price: float


class PriceChanges:
    """The changes of a price when one group takes other widths.

    They depend on the widths of the few groups that share layers with it, and searches pass by the same ones often: each is
    priced once.
    """

    def __init__(self, prices: Prices, allowed: Mapping[Factor, Sequence[int]]) -> None:
        self._prices, self._allowed = prices, allowed
        self._near = {factor: tuple(other for other in prices.sharing(factor) if other in allowed) for factor in allowed}
        self._known: dict[tuple[Factor, tuple[int, ...]], dict[int, float]] = {}

    def __call__(self, counts: GroupWidths, factor: Factor, widths: Sequence[int]) -> list[float]:
        """The change at each of some widths of a group; ``counts`` are the widths as they are."""
        present, near = counts[factor], tuple([counts[other] for other in self._near[factor]])
        known = self._known.setdefault((factor, near), {})
        missing = [width for width in (*widths, present) if width not in known]
        counts[factor] = self._allowed[factor][0]
        for width in missing:
            known[width] = self._prices.change(counts, factor, width)
        counts[factor] = present
        return [known[width] - known[present] for width in widths]


def thinned(widths: Sequence[int]) -> list[int]:
    """At most so many widths, evenly, both ends among them."""
    at = np.unique(np.linspace(0, len(widths) - 1, min(_CHOICES, len(widths))).round().astype(int))
    return [widths[i] for i in at]


def settled(start: GroupWidths, choose: Callable[[GroupWidths, Factor], int]) -> GroupWidths:
    """Widths after each group in turn has taken the one that is best given the others', until none moves."""
    counts = dict(start)
    for _ in range(_ROUNDS):
        moved = False
        for factor, present in counts.items():
            best = choose(counts, factor)
            moved |= best != present
            counts[factor] = best
        if not moved:
            break
    return counts


def cheapest(allowed: Mapping[Factor, Sequence[int]], prices: Prices) -> GroupWidths:
    """The widths that cost least, as far as one group after the other finds them.

    Time does not always fall with widths: an int8 convolution of 12 channels may take longer than one of 16.
    """
    changes, coarse = PriceChanges(prices, allowed), {factor: thinned(widths) for factor, widths in allowed.items()}

    def choose(counts: GroupWidths, factor: Factor) -> int:
        return coarse[factor][int(np.argmin(changes(counts, factor, coarse[factor])))]

    starts = [{factor: widths[end] for factor, widths in allowed.items()} for end in (0, -1)]
    return min((settled(start, choose) for start in starts), key=prices.total)


class WidthSearch(ABC):
    """A search for widths whose price is within a budget.

    Attributes:
        allowed: the widths of each group, ascending.
        prices: the cost under widths.
        budget: the most that widths may cost.
        least: the widths that cost least.
        changes: of the price, from widths to others.
    """

    farthest = 1
    """Steps lead to widths 1, 2, 4, ... places away, up to this."""
    worth_filling = -math.inf
    """Room in the budget that is left as it is, and anything less."""

    def __init__(self, allowed: Mapping[Factor, Sequence[int]], prices: Prices, budget: float) -> None:
        self.allowed, self.prices, self.budget = allowed, prices, budget
        self.least = cheapest(allowed, prices)
        self.changes = PriceChanges(prices, allowed)

    @abstractmethod
    def loss(self, factor: Factor, present: int, place: int) -> float:
        """The growth of the loss when a group goes from one of its allowed widths to another, both given by their places."""

    @abstractmethod
    def gain(self, step: WidthStep, counts: GroupWidths) -> tuple[float | int | str, ...] | None:
        """The greatest is taken first when there is room; ``None`` for a step that is not worth it."""

    @abstractmethod
    def harm(self, step: WidthStep, over: float) -> tuple[float | int | str, ...]:
        """The least is taken first when ``over`` must be saved."""

    def within(self, at: Callable[[float], GroupWidths], low: float, high: float, steps: int) -> list[tuple[float, GroupWidths]]:
        """The least widths, then those within the budget that bisection of a parameter passes, the last closest to the budget.

        Each comes with its parameter, the least widths with ``high``.

        Args:
            at: the widths at a parameter; they cost less the higher it is.
            low: a parameter at which they are likely to cost too much.
            high: one at which they cost no more than the budget.
            steps: how often the interval is halved.
        """
        found = [(high, self.least)]
        for _ in range(steps):
            middle = (low + high) / 2
            counts = at(middle)
            if self.prices.total(counts) <= self.budget:
                high = middle
                found.append((middle, counts))
            else:
                low = middle
        return found

    def steps(self, counts: GroupWidths, direction: int, held: Factor | None = None) -> list[WidthStep]:
        """The steps up (``direction`` 1) or down (-1) of every group except the one that is held."""
        found = []
        for factor, widths in self.allowed.items():
            if factor is held:
                continue
            present, places, stride = bisect_left(widths, counts[factor]), [], 1
            while stride <= self.farthest and 0 <= present + direction * stride < len(widths):
                places.append(present + direction * stride)
                stride *= 2
            near = [widths[place] for place in places]
            for place, width, price in zip(places, near, self.changes(counts, factor, near), strict=True):
                found.append(WidthStep(factor, width, self.loss(factor, present, place), price))
        return found

    def fill(self, counts: GroupWidths, held: Factor | None = None) -> GroupWidths:
        """Spend what is left of the budget, the step with the greatest gain first; changes ``counts``."""
        while (room := self.budget - self.prices.total(counts)) > self.worth_filling:
            gains = [
                (gain, step) for step in self.steps(counts, 1, held) if step.price <= room and (gain := self.gain(step, counts))
            ]
            if not gains:
                break
            best = max(gains, key=lambda found: found[0])[1]
            counts[best.factor] = best.width
        return counts

    def save(self, counts: GroupWidths, held: Factor) -> GroupWidths | None:
        """Save what is spent beyond the budget, the step with the least harm first; ``None`` where that cannot be.

        Changes ``counts``.
        """
        while (over := self.prices.total(counts) - self.budget) > 0:
            steps = [step for step in self.steps(counts, -1, held) if step.price < 0]
            if not steps:
                return None
            best = min(steps, key=lambda step: self.harm(step, over))
            counts[best.factor] = best.width
        return counts
