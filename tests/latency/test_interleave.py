"""The statistics and the schedule of runs that take turns."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from onnxprune.latency.interleave import Quartiles, interleave, quartiles


class FakeTime:
    """A clock that only runs advance; keeps the log of them."""

    def __init__(self, *costs: float) -> None:
        self.time = 0.0
        self.log: list[tuple[int, int]] = []
        self.runs: list[Callable[[int], None]] = [self._run(index, cost) for index, cost in enumerate(costs)]

    def _run(self, index: int, cost: float) -> Callable[[int], None]:
        def run(times: int) -> None:
            self.log.append((index, times))
            self.time += cost * times

        return run

    def now(self) -> float:
        return self.time


def test_spread_is_median_and_quartiles() -> None:
    assert quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == Quartiles(3.0, 2.0, 4.0)
    assert quartiles([1.0, 2.0]) == Quartiles(1.5, 1.25, 1.75)
    assert quartiles([7.0]) == Quartiles(7.0, 7.0, 7.0)


def test_candidates_take_turns_and_every_other_round_is_reversed() -> None:
    fake = FakeTime(0.01, 0.02, 0.03)
    samples = interleave(fake.runs, clock=fake.now, now=fake.now, seconds=0, min_rounds=3, warmup=5)
    assert fake.log[:3] == [(0, 5), (1, 5), (2, 5)]
    rounds = fake.log[3 + 9 :]  # after the warm-up come three calibrating runs each
    assert rounds[0::2] == rounds[1::2]  # each sample of one run is preceded by one untimed run
    assert [index for index, _ in rounds[0::2]] == [0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert np.allclose(samples, [[0.01] * 3, [0.02] * 3, [0.03] * 3])


def test_short_runs_share_one_inner_count_that_fills_a_millisecond() -> None:
    fake = FakeTime(2**-13, 2**-8)
    samples = interleave(fake.runs, clock=fake.now, now=fake.now, seconds=0, min_rounds=2, warmup=0)
    assert {times for _, times in fake.log} == {0, 1, 9}  # 9 x 0.122 ms
    assert np.allclose(samples, [[2**-13] * 2, [2**-8] * 2])  # seconds per run, not per sample


def test_a_clock_too_coarse_to_see_a_run_does_not_loop_forever() -> None:
    fake = FakeTime(0.0)
    assert interleave(fake.runs, clock=fake.now, now=fake.now, seconds=0, min_rounds=1, warmup=0) == [[0.0]]
    assert max(times for _, times in fake.log) == 10_000


def test_rounds_go_on_until_the_seconds_of_each_candidate_have_passed() -> None:
    fake = FakeTime(0.1, 0.1)
    samples = interleave(fake.runs, clock=fake.now, now=fake.now, seconds=0.9, min_rounds=2, warmup=0)
    assert [len(values) for values in samples] == [5, 5]  # 1.8 s / (2 candidates x 2 runs x 0.1 s)


def test_garbage_collection_is_off_while_measuring_and_back_on_after_a_failure() -> None:
    seen = []

    def run(times: int) -> None:
        seen.append(gc.isenabled())
        if len(seen) > 6:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interleave([run], clock=FakeTime().now, seconds=0, min_rounds=9, warmup=1)
    assert seen[0]
    assert not seen[-1]
    assert gc.isenabled()
