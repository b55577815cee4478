"""Progress: positions as numbers of steps, and messages that do not come too often."""

from __future__ import annotations

import pytest

from onnxprune.training.phase import Phase
from onnxprune.training.progress import Epoch, ProgressMeter, TrainerState

PHASES = [Phase("one", 2), Phase("two", 3)]


def test_steps_are_counted_over_phases() -> None:
    meter = ProgressMeter(print, PHASES, 5)
    assert [meter.done(TrainerState(*at)) for at in ((0, 0, 0), (0, 1, 3), (1, 0, 0), (1, 2, 5))] == [0, 8, 10, 25]


def test_time_left_follows_from_the_steps_that_were_trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = iter([100.0, 110.0, 110.1, 130.0]), list[str]()
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    meter = ProgressMeter(told.append, PHASES, 5)
    meter.resume(TrainerState(1, 0, 0))
    scored = [Epoch("two", 1, 0.5, 0.25, 0.1, 1.0)]
    meter.show(TrainerState(1, 1, 5, 2.0, epochs=scored))
    meter.show(TrainerState(1, 2, 1, 2.0, epochs=scored))  # a tenth of a second later
    meter.show(TrainerState(1, 2, 2, 3.0))
    assert told == ["two: epoch 2/3, loss 0.4000, score 0.2500, 5 s left", "two: epoch 3/3, loss 1.5000, 8 s left"]
