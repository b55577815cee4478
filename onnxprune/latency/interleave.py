"""Runs that take turns (A B, B A, A B, ...), so that what slows the machine for a while slows all of them.

A sample is one untimed run, which brings the candidate's weights back into the caches that the others have filled, then as
many timed runs as the fastest candidate needs for a millisecond.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Quartiles", "TimedRun", "interleave", "quartiles"]

_MIN_SAMPLE = 1e-3  # seconds: far above the cost of reading a clock and of one Python loop step
_MAX_INNER = 10_000
_CALIBRATION_RUNS = 3

TimedRun = Callable[[int], None]
"""Runs as many times as it is told."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A median and its quartiles."""

    median: float
    q1: float
    q3: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return the median and quartiles (interpolated linearly) of one or more values."""
    q1, median, q3 = (float(value) for value in np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75]))
    return Quartiles(median, q1, q3)


def interleave(
    runs: Sequence[TimedRun],
    *,
    clock: Callable[[], float],
    now: Callable[[], float] = time.perf_counter,
    seconds: float,
    min_rounds: int,
    warmup: int,
) -> list[list[float]]:
    """Return, per candidate, its seconds per run in every round; the lists have equal length and rounds correspond.

    After ``warmup`` runs each, the number of runs per sample is fixed once for all. Then rounds go on, every other one
    in reverse order, until there are ``min_rounds`` and ``seconds`` for each candidate have passed on ``now``.
    ``clock`` takes the samples.
    """

    def timed(run: TimedRun, times: int) -> float:
        start = clock()
        run(times)
        return (clock() - start) / times

    for run in runs:
        run(warmup)
    fastest = min(timed(run, 1) for _ in range(_CALIBRATION_RUNS) for run in runs)
    inner = min(_MAX_INNER, math.ceil(_MIN_SAMPLE / max(fastest, _MIN_SAMPLE / _MAX_INNER)))
    samples: list[list[float]] = [[] for _ in runs]
    order = list(range(len(runs)))
    end = now() + seconds * len(runs)
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(samples[0]) < min_rounds or now() < end:
            for index in order:
                runs[index](1)
                samples[index].append(timed(runs[index], inner))
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    return samples
