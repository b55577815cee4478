"""Targets that are measured: the smallest model within a loss of quality, and a latency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import TargetError
from onnxprune.options.targets import Target

if TYPE_CHECKING:
    from onnxprune.driver.compiler import Compiler
    from onnxprune.driver.result import Pruned
    from onnxprune.verify.metrics import Evaluation, QualityScore

__all__ = ["DropSearch", "at_latency", "within_drop"]

_ROUNDS = 6
"""How often a latency is corrected, at most."""
_WITHIN = (0.92, 0.99)
"""What a measured latency may be, as a share of the one asked for; the next round aims at the middle."""
_SECONDS = 2.0
_LEAST, _FINE = 0.05, 0.02
"""The smallest share that is tried, and the distance of shares at which the search ends."""


@dataclass(frozen=True, slots=True)
class DropSearch:
    """Attributes:
    pruned: the model that was found.
    score: its score.
    target: the target that it was built for.
    tried: for every target that was tried the score that came of it, in order.
    """

    pruned: Pruned
    score: QualityScore
    target: Target
    tried: tuple[tuple[Target, float], ...]


def at_latency(compiler: Compiler, target: Target) -> tuple[Target, float]:
    """The target whose model, timed as a whole beside the original, takes no more than was asked for, and little less; its share.

    The sum of layers' times predicts the whole to some percent; what it is off by at one target is made up for at the next.

    Raises:
        TargetError: the latency cannot be reached; says what is.
    """
    from onnxprune.latency.timer import measure_ratio

    share, found, least = target.fraction, None, 1.0
    for round_ in range(_ROUNDS):
        asked = Target("latency", min(round(share, 4), 1.0))
        original, candidate = compiler.draft(asked)
        with compiler.stages("measuring", f"measuring what {asked} comes to ({round_ + 1})"):
            measured = measure_ratio(original, candidate, seconds=_SECONDS) / target.fraction
        least = min(least, measured * target.fraction)
        if measured <= 1 and (found is None or measured > found[0]):
            found = measured, asked
        if _WITHIN[0] <= measured <= _WITHIN[1]:
            break
        share = asked.fraction * sum(_WITHIN) / 2 / measured
    if found is None:
        raise TargetError(f"target {target} cannot be reached: the fastest model of {_ROUNDS} has latency={least:.3f}, measured")
    return found[1], found[0] * target.fraction


def within_drop(compiler: Compiler, evaluation: Evaluation, drop: float, start: Target) -> DropSearch:
    """The model with the least share of a metric whose score is at most ``drop`` below the original's; found by bisection.

    The search begins at ``start``. Quality is taken to fall with size; where it does not quite, what is returned has still been
    measured to hold.

    Raises:
        TargetError: nothing that was tried stays within the drop.
    """
    tried: list[tuple[Target, float]] = []
    best: DropSearch | None = None
    narrow: TargetError | None = None
    low, high, share = _LEAST, 1.0, start.fraction
    while high - low > _FINE:
        target = Target(start.metric, round(share, 4))
        try:
            pruned = compiler.build(target)
        except TargetError as error:
            narrow, low = error, share  # narrower than widths go
            share = (low + high) / 2
            continue
        with compiler.stages("evaluation", f"evaluating {target}"):
            score = evaluation.of(pruned.model)
        tried.append((target, score.pruned))
        if score.original - score.pruned <= drop + 1e-12:
            best, high = DropSearch(pruned, score, target, ()), share
        else:
            low = share
        share = (low + high) / 2
    if best is None:
        if narrow and not tried:
            raise narrow
        least = max(score for _, score in tried)
        raise TargetError(
            f"no model within a drop of {drop:.2%}: the best of {len(tried)} has {evaluation.metric} {least:.4f}, the original "
            f"{evaluation.original:.4f}; allow a larger drop, or give more calibration samples"
        )
    return replace(best, tried=tuple(tried))
