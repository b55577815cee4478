"""Targets that are measured: the smallest model within a loss of quality, and a latency; and how shares are searched for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import TargetError
from onnxprune.options.targets import Target

if TYPE_CHECKING:
    from onnxprune.driver.compiler import Compiler
    from onnxprune.driver.result import Pruned
    from onnxprune.verify.metrics import Evaluation, QualityScore

__all__ = ["LEAST", "ROUNDING", "DropSearch", "approach", "at_latency", "least_share", "lost_share", "within_drop"]

_ROUNDS = 6
"""How often a latency is corrected, at most."""
_WITHIN = (0.92, 0.99)
"""What a measured latency may be, as a share of the one asked for; the next round aims at the middle."""
_SECONDS = 2.0
LEAST, _FINE = 0.05, 0.02
"""The smallest share that is tried, and the distance of shares at which the search ends."""
_STEP, _SLOW = 0.95 * _FINE, 2
"""The least step of a share, after which the search may end; and steps in a row that do not halve what remains."""
ROUNDING = 1e-12
"""By how much a score may be lower because it was rounded."""


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

    def measure(share: float) -> float:
        asked = Target("latency", share)
        original, candidate = compiler.draft(asked)
        with compiler.stages("measuring", f"measuring what {asked} comes to"):
            return measure_ratio(original, candidate, seconds=_SECONDS)

    tried = approach(measure, target.fraction, target.fraction)
    met = [(measured, share) for share, measured in tried.items() if measured <= target.fraction]
    if not met:
        least = min(1.0, *tried.values())
        raise TargetError(f"target {target} cannot be reached: the fastest model of {_ROUNDS} has latency={least:.3f}, measured")
    measured, share = max(met)
    return Target("latency", share), measured


def approach(measure: Callable[[float], float], wanted: float, start: float) -> dict[float, float]:
    """The shares that were tried until one measured what is ``wanted`` or little less, each with what it measured, in order.

    What is measured is taken to be about proportional to the share: what it is off by is made up for in the next round.

    Args:
        measure: what a share comes to, as a fraction of the original.
        wanted: that fraction.
        start: the first share.
    """
    tried: dict[float, float] = {}
    share = start
    for _ in range(_ROUNDS):
        asked = min(round(share, 4), 1.0)
        tried[asked] = measured = measure(asked)
        off = measured / wanted
        if _WITHIN[0] <= off <= _WITHIN[1]:
            break
        share = asked * sum(_WITHIN) / 2 / off
    return tried


def within_drop(compiler: Compiler, evaluation: Evaluation, drop: float, start: Target) -> DropSearch:
    """The model with the least share of a metric whose score is at most ``drop`` below the original's.

    The search begins at ``start``. Quality is taken to fall with size; where it does not quite, what is returned has still been
    measured to hold.

    Raises:
        TargetError: nothing that was tried stays within the drop.
    """
    tried: list[tuple[Target, float]] = []
    best: DropSearch | None = None
    narrow: TargetError | None = None

    def lost(share: float) -> float:
        nonlocal best, narrow
        target = Target(start.metric, share)
        try:
            pruned = compiler.build(target)
        except TargetError as error:
            narrow = error  # narrower than widths go
            return math.inf
        with compiler.stages("evaluation", f"evaluating {target}"):
            score = evaluation.of(pruned.model)
        tried.append((target, score.pruned))
        found = lost_share(score.original, score.pruned, drop)
        if found <= 1:
            best = DropSearch(pruned, score, target, ())
        return found

    least_share(lost, start.fraction)
    if best is None:
        if narrow and not tried:
            raise narrow
        least = max(score for _, score in tried)
        raise TargetError(
            f"no model within a drop of {drop:.2%}: the best of {len(tried)} has {evaluation.metric} {least:.4f}, the original "
            f"{evaluation.original:.4f}; allow a larger drop, or give more calibration samples"
        )
    return replace(best, tried=tuple(tried))


def lost_share(original: float, score: float, drop: float) -> float:
    """What a score lost, as a share of what it may lose: at most 1 where that holds; infinite where nothing may be lost."""
    loss = original - score
    if loss <= drop + ROUNDING:
        return max(min(loss / drop, 1.0), 0.0) if drop else 0.0
    return loss / drop if drop else math.inf


def least_share(lost: Callable[[float], float], start: float, low: float = LEAST) -> float:
    """The least share above ``low`` that was found to hold, from ``start`` on; 1 if none was, which is not tried.

    A loss is taken to grow with the square of what is removed: its root is interpolated between the nearest shares that hold and
    do not. Where that did not halve the interval twice in a row, its middle is tried next.

    Args:
        lost: what a share loses, as a share of what may be lost; infinite where there is no such model.
        start: the first share.
        low: a share that does not hold, or is not wanted.
    """
    high, share, slow = 1.0, start, 0
    above, below = 0.0, math.inf  # what is lost at high and at low
    while (width := high - low) > _FINE:
        measured = lost(round(share, 4))
        if measured <= 1:
            high, above = share, measured
        else:
            low, below = share, measured
        slow = 0 if high - low <= width / 2 else slow + 1
        share = (low + high) / 2
        root = math.sqrt(above)
        if slow < _SLOW and math.isfinite(below):
            share = high - (high - low) * (1 - root) / max(math.sqrt(below) - root, ROUNDING)
        elif slow < _SLOW and root:
            share = 1 - (1 - high) / root  # on the line from the original, which loses nothing
        share = max(min(share, high - _STEP), low + _STEP)
    return high
