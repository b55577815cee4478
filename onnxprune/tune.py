"""Targets that are measured: the smallest model within a loss of quality, and a latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.errors import TargetError
from onnxprune.recipe import Target

if TYPE_CHECKING:
    from onnxprune.compiler import Built, Compiler
    from onnxprune.metrics import Evaluation, Score

__all__ = ["Tuned", "within_drop"]

_LEAST, _FINE = 0.05, 0.02
"""The smallest share that is tried, and the distance of shares at which the search ends."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Attributes:
    built: the model that was found.
    score: its score.
    target: the target that it was built for.
    tried: for every target that was tried the score that came of it, in order.
    """

    built: Built
    score: Score
    target: Target
    tried: tuple[tuple[Target, float], ...]


def within_drop(compiler: Compiler, evaluation: Evaluation, drop: float, start: Target) -> Tuned:
    """The model with the least share of a metric whose score is at most ``drop`` below the original's; found by bisection.

    The search begins at ``start``. Quality is taken to fall with size; where it does not quite, what is returned has still been
    measured to hold.

    Raises:
        TargetError: nothing that was tried stays within the drop.
    """
    tried: list[tuple[Target, float]] = []
    best: Tuned | None = None
    low, high, share = _LEAST, 1.0, start.fraction
    while high - low > _FINE:
        target = Target(start.metric, round(share, 4))
        try:
            built = compiler.build(str(target))
        except TargetError:
            low = share  # narrower than widths go
            share = (low + high) / 2
            continue
        with compiler.stage("evaluation", f"evaluating {target}"):
            score = evaluation.of(built.pruned)
        tried.append((target, score.pruned))
        if score.original - score.pruned <= drop + 1e-12:
            best, high = Tuned(built, score, target, ()), share
        else:
            low = share
        share = (low + high) / 2
    if best is None:
        least = max((score for _, score in tried), default=0.0)
        raise TargetError(
            f"no model within a drop of {drop:.2%}: the best of {len(tried)} has {evaluation.metric} {least:.4f}, the original "
            f"{evaluation.original:.4f}; allow a larger drop, or give more calibration samples"
        )
    return Tuned(best.built, best.score, best.target, tuple(tried))
