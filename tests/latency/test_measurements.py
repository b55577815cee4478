"""A model is timed once, in a batch that fits in memory, and slow moments of the machine are set right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.latency import measurements
from onnxprune.latency.cache import LatencyCache
from onnxprune.latency.measurements import TimingProgress, Timings
from onnxprune.latency.segments import constant_bytes
from onnxprune.latency.timer import yardstick


def model_of(size: int) -> ModelProto:
    """A model with a constant of so many elements."""
    graph = helper.make_graph([], "g", [], [], [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size])])
    return helper.make_model(graph)


def size_of(model: ModelProto) -> float:
    return float(model.graph.initializer[0].dims[0])


class Clock:
    """Takes as many milliseconds as a model has elements, times the pace of each call; the yardstick has 64."""

    def __init__(self, paces: Sequence[float] = (1.0,), fails: float = -1) -> None:
        self.paces, self.fails, self.batches = paces, fails, list[list[float]]()

    def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
        pace = self.paces[len(self.batches) % len(self.paces)]
        self.batches.append([size_of(model) for model in models])
        return [None if size_of(model) == self.fails else pace * size_of(model) for model in models]


def timings_of(
    clock: Clock, path: Path | None = None, progress: TimingProgress | None = None, *, failures: bool = False
) -> Timings[ModelProto]:
    return Timings(clock, LatencyCache(path, "machine", failures=failures), yardstick(), constant_bytes, progress)


def add(times: Timings[ModelProto], size: int) -> str:
    times.models[f"model of {size}"] = model_of(size)
    return f"model of {size}"


def measured(times: Timings[ModelProto], sizes: Sequence[int]) -> list[float | None]:
    digests = [add(times, size) for size in sizes]
    times.measure()
    return [times.get(digest) for digest in digests]


def test_equal_models_are_one() -> None:
    clock = Clock()
    times = timings_of(clock)
    assert measured(times, [3, 5, 3]) == [3, 5, 3]
    assert measured(times, [5, 7]) == [5, 7]
    assert clock.batches == [[64, 3, 5], [64, 7]]
    assert times.timed == 4


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 3)
    monkeypatch.setattr(measurements, "_BYTES", 400)
    clock = Clock()
    measured(timings_of(clock), [1, 2, 3, 4, 90, 20, 500, 6])
    assert clock.batches == [[64, 1, 2, 3], [64, 4, 90], [64, 20], [64, 500], [64, 6]]


def test_the_yardstick_is_timed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_STRIDE", 2)
    clock = Clock()
    measured(timings_of(clock), [1, 2, 3, 4, 5])
    assert clock.batches == [[64, 1, 2, 64, 3, 4, 64, 5]]


def test_slow_moments_are_set_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 2)
    times = timings_of(Clock(paces=(2.0, 3.0, 1.0)))
    assert measured(times, [1, 2, 3, 4, 5, 6]) == pytest.approx([2, 4, 6, 8, 10, 12])


def test_the_pace_holds_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    assert measured(timings_of(Clock(), path), [1]) == [1]
    later = timings_of(Clock(paces=(5.0,)), path)
    assert measured(later, [1, 2]) == pytest.approx([1, 2])
    assert later.timed == 1


def test_what_does_not_run_is_asked_again_in_the_next_run_only(tmp_path: Path) -> None:
    path, clock = tmp_path / "times.sqlite", Clock(fails=2)
    times = timings_of(clock, path)
    assert measured(times, [1, 2]) == [1, None]
    assert measured(times, [1, 2]) == [1, None]
    assert len(clock.batches) == 1
    assert measured(timings_of(Clock(), path), [1, 2]) == [1, 2]


def test_of_repeated_times_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noisy(Clock):
        def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
            super().__call__(models)
            extra = [0.0, 5.0, 1.0, 3.0][len(self.batches) - 1]
            return [64.0 if size_of(model) == 64 else size_of(model) + extra for model in models]

    clock = Noisy()
    times = timings_of(clock)
    assert measured(times, [9]) == [9]
    digests = [add(times, size) for size in (7, 7, 9)]
    assert [times.repeat(digests) and times.get(digests[0]) for _ in range(3)] == [12, 8, 8]
    assert clock.batches[1:] == [[64, 7]] * 3
    timed = times.timed
    times.settle()
    assert (times.get(digests[0]), times.timed) == (8, timed + 1)
    assert not times.repeat(digests)


def test_a_clock_that_stands_still_sets_nothing_right() -> None:
    assert measured(timings_of(Clock(paces=(0.0,))), [1, 2]) == [0, 0]


def test_an_interrupted_run_keeps_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 2)
    path = tmp_path / "times.sqlite"

    class Interrupted(Clock):
        def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(models)

    with pytest.raises(KeyboardInterrupt):
        measured(timings_of(Interrupted(), path), [1, 2, 3, 4, 5, 6])
    clock = Clock()
    assert measured(timings_of(clock, path), [1, 2, 3, 4, 5, 6]) == [1, 2, 3, 4, 5, 6]
    assert clock.batches == [[64, 5, 6]]


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 2)
    told: list[tuple[str, int, int]] = []
    times = timings_of(Clock(), progress=lambda *what: told.append(what))
    measured(times, [1, 2, 3])
    assert told == [("timing layers", 0, 3), ("timing layers", 2, 3), ("timing the model", 3, 3)]


def test_what_does_not_run_is_not_tried_again_where_failures_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    clock = Clock(fails=2)
    assert measured(timings_of(clock, path, failures=True), [1, 2]) == [1, None]
    assert measured(timings_of(clock, path, failures=True), [1, 2]) == [1, None]
    assert len(clock.batches) == 1


def test_times_that_are_not_known_are_named(tmp_path: Path) -> None:
    times = timings_of(Clock(), tmp_path / "times.sqlite")
    measured(times, [1, 2])
    assert times.unknown([add(times, 2), add(times, 3)]) == ["model of 3"]
