"""The progress of a training: what it has come to so far, how it is told, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.training.phase import Phase

__all__ = ["Epoch", "ProgressMeter", "Tell", "TrainerState"]

Tell = Callable[[str], None]
"""Called with a line of text that says how a run goes."""
_INTERVAL = 0.2
"""Seconds between two messages: a terminal is readable then, and writing to it costs no time."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The result of an epoch.

    Attributes:
        phase: the name of its phase.
        number: of the epoch in the phase, from 1; 0 is the state at the begin of the phase, which has no loss.
        loss: the mean over its steps.
        score: on evaluation samples, if there are any.
        rate: the learning rate of its last step; of the first weight, where each has its own.
        seconds: that it took.
    """

    phase: str
    number: int
    loss: float
    score: float | None
    rate: float
    seconds: float


@dataclass(slots=True)
class TrainerState:
    """The position of a run and its results so far: all that a checkpoint holds besides module, optimizer and random generators.

    Attributes:
        phase: the number of the phase, from 0.
        epoch: the number of the epoch in the phase, from 0.
        step: the number of steps of the epoch that are done.
        loss: the sum of their losses.
        best: the best score of the last phase, and the module's state dict that had it.
        stale: epochs since the best one.
        snapshots: the state dict that was kept for rewinding.
        epochs: results of the epochs that are done.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    best: tuple[float, dict[str, Tensor]] | None = None
    stale: int = 0
    snapshots: dict[str, Tensor] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Self:
        """The state in a checkpoint, whose epochs are tuples."""
        position = (saved["phase"], saved["epoch"], saved["step"], saved["loss"])
        epochs = [Epoch(*values) for values in saved["epochs"]]
        return cls(*position, saved["best"], saved["stale"], saved["snapshots"], epochs)


class ProgressMeter:
    """Tells how a run goes, with an estimate of the time that is left.

    Args:
        tell: called with each message.
        phases: of the run.
        steps: of an epoch.
    """

    def __init__(self, tell: Tell, phases: Sequence[Phase], steps: int) -> None:
        self._tell, self._phases, self._steps = tell, phases, steps
        self._begun, self._told = time.monotonic(), 0.0
        self._skipped = 0

    def done(self, state: TrainerState) -> int:
        """The number of steps before a position; epochs that were left out because training stopped early count."""
        epochs = sum(phase.epochs for phase in self._phases[: state.phase]) + state.epoch
        return epochs * self._steps + state.step

    def resume(self, state: TrainerState) -> None:
        """Count no step before this position as one that took time."""
        self._skipped = self.done(state)

    def show(self, state: TrainerState) -> None:
        """Tell the position, the mean loss of the epoch, the last score and the time left, unless a message came just before."""
        now = time.monotonic()
        if now - self._told < _INTERVAL:
            return
        self._told = now
        done, phase = self.done(state), self._phases[state.phase]
        total = sum(phase.epochs for phase in self._phases) * self._steps
        left = (now - self._begun) / max(done - self._skipped, 1) * max(total - done, 0)
        score = next((f", score {e.score:.4f}" for e in reversed(state.epochs) if e.score is not None), "")
        mean = state.loss / state.step
        self._tell(f"{phase.name}: epoch {state.epoch + 1}/{phase.epochs}, loss {mean:.4f}{score}, {left:.0f} s left")
