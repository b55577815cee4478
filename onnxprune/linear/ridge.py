"""The best weights for a reader. Rows that were not fitted decide on the ridge, and on steps towards the rectified target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.linear.regression import Regression
from onnxprune.runtime.parallel import at_once, map_ordered

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxprune.ir.weights import Array

__all__ = ["Refit", "refit"]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that are tried, relative to the mean diagonal: from next to none, for many rows, to as strong as the data."""
_FIRST = RIDGES[1:-1]
"""Those that are tried in any case, side by side: from the middle one its neighbours are looked at."""
_COPIES = 3
"""Gram matrices in double precision that one ridge takes while it is solved."""
_ROUNDS = 3
"""Steps towards the least error behind a rectifier, at most."""


@dataclass(frozen=True, slots=True)
class Refit:
    """Attributes:
    weights: the solution; ``None`` where nothing does better than what is there. float64 [groups, features, outputs]
    before: mean squared error of what is there, on rows that no fit saw, over the variance of the target.
    after: that of the solution's kind.
    """

    weights: Array | None
    before: float
    after: float


def refit(whole: Regression, fit: Regression, judge: Regression, start: Array) -> Refit:
    """The solution on all rows of the kind that does best on the rows to judge by when it is fitted on the others.

    Args:
        whole: all rows.
        fit: those to fit on while kinds are compared.
        judge: the others.
        start: the weights that are there, which the ridge pulls to. float64 [groups, features, outputs]
    """
    if not judge.y.size:
        return Refit(None, 0.0, 0.0)
    linear = (_FromRows if fit.dual else _FromMoments)(whole, fit, judge, start)
    damping = _best_ridge(linear.error)
    trial = linear.fitted(damping)
    before, after, rounds = judge.error(start), judge.error(trial), 0
    if fit.rectified:
        solver = fit.solver(damping)
        while rounds < _ROUNDS:
            step = solver.solve(trial, start, rectified=True)
            error = judge.error(step)
            if not error < after:
                break
            trial, after, rounds = step, error, rounds + 1
    scale = max(float(judge.y.var()), 1e-30)
    if not after < before:  # nor if either is not a number
        return Refit(None, before / scale, before / scale)
    if not rounds:
        return Refit(linear.final(damping), before / scale, after / scale)
    solver = whole.solver(damping, linear.gram)  # what is cut off is known by now: one step on all rows
    return Refit(solver.solve(trial, start, rectified=True), before / scale, after / scale)


def _best_ridge(error: Callable[[float], float]) -> float:
    """The ridge from which both neighbours are worse, from the middle on: each that is tried is a system to solve."""
    known: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in known:
            known[place] = error(RIDGES[place])
        return known[place]

    place = len(RIDGES) // 2  # in the middle of `_FIRST`
    while place > 0 and at(place - 1) < at(place):
        place -= 1
    while place + 1 < len(RIDGES) and at(place + 1) < at(place):
        place += 1
    return RIDGES[place]


class _FromMoments:
    """Linear solutions from second moments: rows are gone through once for all ridges."""

    def __init__(self, whole: Regression, fit: Regression, judge: Regression, start: Array) -> None:
        self._start, self._judge = start, judge.moments(start)
        self._seen = fit.moments(start)
        self._all = self._seen + self._judge
        solved = map_ordered(self._seen.step, _FIRST, at_once(_COPIES * 8 * self._seen.gram.size))
        self._steps = dict(zip(_FIRST, solved, strict=True))
        self.gram: Array | None = self._all.gram

    def error(self, damping: float) -> float:
        if damping not in self._steps:
            self._steps[damping] = self._seen.step(damping)
        return self._judge.error(self._steps[damping])

    def fitted(self, damping: float) -> Array:
        found: Array = self._start + self._steps[damping]
        return found

    def final(self, damping: float) -> Array:
        found: Array = self._start + self._all.step(damping)
        return found


class _FromRows:
    """Linear solutions in dual form, judged row by row."""

    gram: Array | None = None

    def __init__(self, whole: Regression, fit: Regression, judge: Regression, start: Array) -> None:
        self._whole, self._fit, self._judge, self._start = whole, fit, judge, start
        self._fitted: dict[float, Array] = {}

    def error(self, damping: float) -> float:
        self._fitted[damping] = self._fit.solver(damping).solve(self._start, self._start)
        return self._judge.error(self._fitted[damping])

    def fitted(self, damping: float) -> Array:
        return self._fitted[damping]

    def final(self, damping: float) -> Array:
        return self._whole.solver(damping).solve(self._start, self._start)
