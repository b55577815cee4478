"""Two models on the same inputs: whether their values are equal, and whether these inputs would have shown a difference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.axes.factors import Indices, take
from onnxprune.errors import ModelError
from onnxprune.ir.node import defined
from onnxprune.runtime.partition import run_each, split
from onnxprune.runtime.session import first_line
from onnxprune.verify.inputs import DRAWS, redrawn, reference, told
from onnxprune.verify.shaking import shaken, weights_that_count
from onnxprune.verify.verdicts import Check, OutputVerdict, Verdict, ancestors, front, reached, silence

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["TOLERANCE", "Way", "compare_values"]

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference allowed, relative to the largest absolute output, by the coarsest floating-point type in the model.

Sums over fewer terms are added in another order; nothing else differs.
"""
_DEPTHS = (4, 16, 64)
"""How many nodes in front of an output that says nothing values are looked for that do."""


@dataclass(frozen=True, slots=True)
class Way:
    """How two models are compared.

    Attributes:
        seed: of the inputs.
        values: whether outputs must be equal; if not, only that both run and have equal shapes and types.
        kept: for a value, what the plan keeps along each of its axes.
        against: what messages call the model that is judged by.
        large: whether a large size is compared, too.
        exact: whether any difference counts, because nothing is computed in another order; float64 decides about it.
        moving: the weights of the judged model that an output must move with to be tested; ``None`` for those that were cut, or
            for all large ones where none was.
    """

    seed: int
    values: bool = True
    kept: Callable[[str], Indices] | None = None
    against: str = "masked"
    large: bool = False
    exact: bool = False
    moving: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """What both models compute from one set of inputs."""

    got: Sequence[Any]
    expected: Sequence[Any]
    feed: Mapping[str, Array]


def compare_values(
    pruned: Model, masked: Model, watched: Sequence[str], way: Way, limit: float, *, skip: Collection[str] = ()
) -> Check:
    """Compare some values of both models, and say of each whether that tested anything.

    Inputs that leave a value constant, or where it does not move when weights do, test nothing: then other inputs are drawn.
    Where that does not help, the values in front of it are compared that do say something.

    Args:
        pruned: the model that is judged.
        masked: the model that it must equal.
        watched: names of values.
        way: how they are compared.
        limit: the largest difference allowed.
        skip: values that may differ.

    Raises:
        ModelError: the masked model does not run.
    """
    given = reference(masked, watched, way.seed, large=way.large)
    sides = _Sides(pruned, masked, way, limit, skip, given.threads)
    outcome, runs = sides.compared(watched, given.feeds, given.results)
    if not outcome.ok:
        return outcome
    parts = len(split(masked, watched))
    notes = given.notes + ((f"run in {parts} segments of the graph, one after the other",) if parts > 1 else ())
    if not way.values:
        untested = (OutputVerdict(name, Verdict.NOT_TESTED, "only its shape must be equal") for name in watched)
        return replace(outcome, notes=notes, outputs=tuple(untested))
    silent = sides.silent(watched, runs)
    for draw in range(1, DRAWS if silent and masked.inputs else 0):
        feeds = [redrawn(masked, run.feed, way.seed + at, draw) for at, run in enumerate(runs)]
        again, more = sides.compared(watched, feeds, run_each(masked, feeds, watched, threads=given.threads))
        if not again.ok:
            return again
        if more:
            silent = {name: why for name, why in silent.items() if name in sides.silent(watched, more)}
        if not silent:
            break
    wrong, fronts = sides.in_front(silent, runs[0]) if silent else (None, {})
    if wrong is not None:
        return wrong
    equal = {
        name for at, name in enumerate(watched) if all(_identical(run.got[at], sides.cut(name, run.expected[at])) for run in runs)
    }
    verdicts = (_verdict(name, silent, fronts, equal) for name in watched)
    return replace(outcome, notes=notes, outputs=tuple(verdicts))


def _verdict(
    name: str, silent: Mapping[str, str], fronts: Mapping[str, Collection[str]], equal: Collection[str]
) -> OutputVerdict:
    if name in fronts:
        return OutputVerdict(
            name, Verdict.TESTED, f"{silent[name]}: compared in front of that, at {', '.join(sorted(fronts[name]))}"
        )
    if name in silent:
        return OutputVerdict(name, Verdict.NOT_TESTED, f"{silent[name]} on all inputs tried")
    return OutputVerdict(name, Verdict.PROVEN if name in equal else Verdict.TESTED)


@dataclass(frozen=True)
class _Sides:
    """The judged model and the one that it is judged by."""

    pruned: Model
    masked: Model
    way: Way
    limit: float
    skip: Collection[str]
    threads: int

    @cached_property
    def moving(self) -> frozenset[str]:
        if self.way.moving is not None:
            return self.way.moving
        shapes = {name: weight.shape for name, weight in self.masked.weights.items()}
        cut = (name for name, weight in self.pruned.weights.items() if shapes.get(name, weight.shape) != weight.shape)
        return frozenset(cut) or frozenset(weights_that_count(self.pruned))

    @cached_property
    def affected(self) -> set[str]:
        return reached(self.pruned, self.moving)

    @cached_property
    def shaken(self) -> Model:
        return shaken(self.pruned, self.moving)

    def cut(self, name: str, value: Any) -> Any:
        """A value of the masked model, without what the plan removes."""
        return take(value, self.way.kept(name)) if self.way.kept is not None and isinstance(value, np.ndarray) else value

    def compared(
        self, watched: Sequence[str], feeds: Sequence[Mapping[str, Array]], results: Sequence[list[Any] | Exception]
    ) -> tuple[Check, list[_Run]]:
        """Whether values are equal, and the runs that say so: a size that the masked model does not take says nothing."""
        try:
            found = run_each(self.pruned, feeds, watched, threads=self.threads)
        except ModelError as error:
            return Check(ok=False, error=np.inf, text=str(error)), []
        runs = []
        for got, expected, feed in zip(found, results, feeds, strict=True):
            if isinstance(expected, Exception):
                continue
            if isinstance(got, Exception):
                text = f"the pruned model does not run on {told(feed)}: {first_line(got)}"
                return Check(ok=False, error=np.inf, text=text, runs=1), []
            runs.append(_Run(got, expected, feed))
        return self.agree(watched, runs), runs

    def agree(self, watched: Sequence[str], runs: Sequence[_Run]) -> Check:
        """Whether values are equal."""
        worst = 0.0
        for count, run in enumerate(runs, 1):
            for name, a, expected in zip(watched, run.got, run.expected, strict=True):
                if name in self.skip:
                    continue
                b = self.cut(name, expected)
                gap = difference(a, b, values=self.way.values)
                worst = max(worst, gap)
                if gap > self.limit:
                    text = f"{name!r} {_told_gap(a, b, gap, self.way.against)} on {told(run.feed)}"
                    return Check(ok=False, error=worst, text=text, runs=count)
        return Check(ok=True, error=worst, runs=len(runs))

    def silent(self, watched: Sequence[str], runs: Sequence[_Run]) -> dict[str, str]:
        """The values that say nothing of the weights that count, each with the reason.

        Those that do not move in the first run may do so in the last one, which is larger.
        """
        found = self._silent_in(runs[0], watched, runs)
        if found and len(runs) > 1:
            last = self._silent_in(runs[-1], watched, runs)
            found = {name: why for name, why in found.items() if name in last}
        return found

    def _silent_in(self, one: _Run, watched: Sequence[str], runs: Sequence[_Run]) -> dict[str, str]:
        """The values that say nothing, where weights are shaken in one run alone."""
        moved = self._moved(watched, one)
        found = {}
        for at, name in enumerate(watched):
            if name in self.skip:
                continue
            moves = partial(self._moves, name, at, moved, one)
            why = silence([run.expected[at] for run in runs], moves)
            if why:
                found[name] = why
        return found

    def _moved(self, watched: Sequence[str], run: _Run) -> Sequence[Any] | None:
        """The values where weights are shaken; ``None`` where no value depends on them, or the model does not run so."""
        if self.affected.isdisjoint(watched):
            return None
        try:
            (moved,) = run_each(self.shaken, [run.feed], watched, threads=self.threads)
        except ModelError:
            return None
        return None if isinstance(moved, Exception) else moved

    def _moves(self, name: str, at: int, moved: Sequence[Any] | None, run: _Run) -> bool:
        return name not in self.affected or moved is None or difference(moved[at], run.got[at]) > self.limit

    def cut_unknown(self, names: Sequence[str], runs: Sequence[_Run]) -> Iterator[str]:
        """The values that a plan cut, where nobody says what it keeps: they cannot be compared."""
        if self.way.kept is None:
            pairs = zip(names, runs[0].got, runs[0].expected, strict=True)
            yield from (name for name, a, b in pairs if np.shape(a) != np.shape(b))

    def in_front(self, silent: Mapping[str, str], run: _Run) -> tuple[Check | None, dict[str, set[str]]]:
        """The values in front of silent ones that say something, for each silent one; or how one of these differs."""
        found: dict[str, set[str]] = {}
        common = {*defined(self.masked.graph)}
        for depth in _DEPTHS:
            left = [name for name in silent if name not in found]
            names = [name for name in ancestors(self.pruned, left, depth) if name in common]
            if not left or not names:
                break
            try:
                outcome, runs = self.compared(names, [run.feed], run_each(self.masked, [run.feed], names, threads=self.threads))
            except ModelError:
                break
            if not runs:
                break
            mute = {*self.silent(names, runs), *self.cut_unknown(names, runs)}
            for name in left:
                before = front(self.pruned, name, self.moving, {one: one not in mute for one in names}.get)
                if before is not None:
                    found[name] = before
            judged = {one for name in left for one in found.get(name, ())}
            (one,) = runs
            places = [at for at, name in enumerate(names) if name in judged]
            outcome = self.agree(
                [names[at] for at in places],
                [_Run([one.got[at] for at in places], [one.expected[at] for at in places], one.feed)],
            )
            if not outcome.ok:
                return outcome, {}
        return None, found


def _told_gap(a: Any, b: Any, gap: float, against: str) -> str:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape != b.shape:
        return f"differs from the {against} model's: its shape is {list(a.shape)}, not {list(b.shape)},"
    return f"differs from the {against} model's by {gap:.2e} (relative)"


def _identical(a: Any, b: Any) -> bool:
    """Tell whether two values are equal bit for bit, except that one NaN is as good as another."""
    return isinstance(b, np.ndarray) and bool(np.array_equal(a, b, equal_nan=b.dtype.kind == "f"))


def difference(a: Any, b: Any, *, values: bool = True) -> float:
    """The largest difference relative to the largest absolute entry of ``b``; infinite where nothing can be compared."""
    if isinstance(b, list):  # a sequence, or maps: compare what they hold
        if len(a) != len(b):
            return float(np.inf)
        return max((difference(x, y, values=values) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(b, dict):
        return float(np.inf) if a.keys() != b.keys() else difference(list(a.values()), [b[key] for key in a], values=values)
    if not isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return float(np.inf)
    if not values or b.size == 0:
        return 0.0
    if str(b.dtype) not in TOLERANCE:
        return 0.0 if np.array_equal(a, b) else float(np.inf)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))  # equal infinities are equal
        gap = np.where(same, 0, np.abs(wide_a - wide_b))
    if not np.isfinite(gap).all():
        return float(np.inf)
    scale = np.abs(wide_b[np.isfinite(wide_b)]).max(initial=0.0)
    return float(gap.max() / scale) if scale else float(gap.max())
