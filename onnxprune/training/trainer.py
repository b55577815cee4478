"""The loop that trains a module: phases, one after the other. A run that is killed anywhere ends with the same weights.

Everything that the next step depends on is in a checkpoint: weights, masks, the state of the optimizer, the position in the data
and the state of the random generators. The order of the samples follows from the seed and the number of the epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onnxprune.options.train import Training
from onnxprune.torch.module import GraphModule
from onnxprune.training.data import TrainingData, seed_all
from onnxprune.training.devices import Devices
from onnxprune.training.phase import Phase
from onnxprune.training.progress import Epoch, ProgressMeter, Tell, TrainerState
from onnxprune.training.step import TrainingStep, make_optimizer

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.training.augment import Augment
    from onnxprune.training.checkpoint import Checkpoint

__all__ = ["Callbacks", "Trainer"]

_EPOCHS_OF_A_PHASE = 1000
"""The order of the samples is drawn from the number ``1000 * phase + epoch``, so that each phase has its own."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that a trainer calls.

    Attributes:
        score: called after each epoch, for the score of the module in evaluation mode; higher is better.
        update_statistics: called before a module is scored or is the result; gives normalisations the statistics of its weights.
        tell: called with the progress, several times a second at most.
        log: called after each epoch with numbers by name, and with the number of steps so far.
    """

    score: Callable[[GraphModule], float] | None = None
    update_statistics: Callable[[], None] = lambda: None
    tell: Tell = lambda _: None
    log: Callable[[Mapping[str, float], int], None] | None = None


@dataclass(frozen=True, slots=True)
class _Loop:
    """A phase that runs.

    Attributes:
        phase: that runs.
        last: it is the last one, whose best epoch is the result.
        student: the module, prepared for the devices; its ``optimizer`` too.
        meter: tells the progress.
    """

    phase: Phase
    last: bool
    student: nn.Module
    optimizer: torch.optim.Optimizer
    meter: ProgressMeter


class Trainer:
    """Trains a module in phases.

    Attributes:
        module: that is trained; it is changed.
        options: as given.
        step: computes the loss of a batch and changes the weights.
        state: the position of the run, and its results so far.
    """

    def __init__(
        self,
        module: GraphModule,
        data: TrainingData,
        options: Training,
        devices: Devices,
        *,
        teacher: GraphModule | None = None,
        augment: Augment | None = None,
        callbacks: Callbacks | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Move the module to its device and choose the loss.

        Args:
            module: with all masks that it will have, since a checkpoint knows only those.
            data: samples.
            options: the loss must be settled (`Training.settled`).
            devices: where it runs.
            teacher: the module whose outputs are right.
            augment: changes the samples.
            callbacks: called on the way.
            checkpoint: the file that the run is kept in.

        Raises:
            OptionError: there is no such loss, or module and teacher do not go together.
        """
        self.module, self.options = module.to(devices.device), options
        self.step, self.state = TrainingStep(module, options, devices, teacher), TrainerState()
        self._data, self._augment, self._devices, self._checkpoint = data, augment, devices, checkpoint
        self._callbacks = callbacks or Callbacks()

    def run(self, phases: Sequence[Phase]) -> list[Epoch]:
        """Train. The module is then that of the best score in the last phase, or the one that this ended with.

        Returns:
            The results of all epochs.

        Raises:
            RequirementError: the loss is not a finite number.
        """
        meter = ProgressMeter(self._callbacks.tell, phases, self._data.steps)
        saved = self._checkpoint.load() if self._checkpoint else None
        if self._checkpoint and saved is not None:
            with self._checkpoint.taken():
                self._restore(saved)
                _check_position(self.state, phases, self._data.steps)
                meter.resume(self.state)
        for number in range(self.state.phase, len(phases)):
            self._run_phase(phases, number, meter, saved)
            saved = None
        if self.state.best is not None:
            self.module.load_state_dict(self.state.best[1])
        else:
            self._callbacks.update_statistics()
        self.module.eval()
        return self.state.epochs

    def _run_phase(self, phases: Sequence[Phase], number: int, meter: ProgressMeter, saved: Mapping[str, Any] | None) -> None:
        """Train one phase, from its begin or from a checkpoint."""
        phase = phases[number]
        if saved is None:
            self._begin(phase, number)
        share = self.options.share if phase.sized else 0.0
        optimizer = make_optimizer(self.module, self.options, phase.groups, share)
        student, optimizer = self._devices.prepare(self.step.student(), optimizer)
        loop = _Loop(phase, number == len(phases) - 1, student, optimizer, meter)
        if self._checkpoint and saved is not None:
            with self._checkpoint.taken():
                optimizer.load_state_dict(saved["optimizer"])
                _check_random_state(saved["random"])
        while self.state.epoch < phase.epochs:
            if self.options.patience and self.state.stale >= self.options.patience:
                break
            self._run_epoch(loop, None if saved is None else saved["random"])
            saved = None
        if phase.end:
            phase.end()

    def _begin(self, phase: Phase, number: int) -> None:
        """Begin a phase, and note the score of the module before its first step."""
        state = self.state
        if phase.begin:
            phase.begin()
            if self._callbacks.score:
                state.epochs.append(Epoch(phase.name, 0, math.nan, self._score(self._callbacks.score), 0.0, 0.0))
        state.phase, state.epoch, state.step, state.loss = number, 0, 0, 0.0
        state.best, state.stale = None, 0
        if phase.start and self._callbacks.score:
            state.best = self._score(self._callbacks.score), _copy_of_state(self.module)
        seed_all(self.options.seed, number)

    def _run_epoch(self, loop: _Loop, random: Mapping[str, Tensor] | None) -> None:
        """Train the rest of an epoch; ``random`` is the state of the random generators where a killed run stopped."""
        state, phase, begun = self.state, loop.phase, time.monotonic()
        if state.epoch == phase.snapshot and not state.step:
            state.snapshots = _copy_of_state(self.module)
        batches = self._batches()
        if random is not None:
            _set_random_state(random)  # after the batches that have been seen were drawn again
        length = phase.epochs * self._data.steps
        for batch in batches:
            done = state.epoch * self._data.steps + state.step
            if phase.each:
                phase.each(done, length)
            factor = (phase.factor or self.options.factor)((done + 0.5) / length)
            for group in loop.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            state.loss += self.step(loop.student, loop.optimizer, batch, phase)
            state.step += 1
            loop.meter.show(state)
            if self._checkpoint and self._checkpoint.due:
                self._save(self._checkpoint, loop.optimizer)
        self._finish(loop, time.monotonic() - begun)
        state.epoch, state.step, state.loss = state.epoch + 1, 0, 0.0
        if self._checkpoint:
            self._save(self._checkpoint, loop.optimizer)

    def _batches(self) -> Iterable[Batch]:
        """The batches of the epoch that have not been seen."""
        number = self.state.epoch + _EPOCHS_OF_A_PHASE * self.state.phase
        batches = self._data.epoch(number, self.state.step)
        return self._augment(batches, number, self.state.step) if self._augment else batches

    def _finish(self, loop: _Loop, seconds: float) -> None:
        """Score the module after an epoch, keep its weights if they are the best, and report the epoch."""
        state, phase, score = self.state, loop.phase, None
        loss = self._devices.mean(state.loss / max(state.step, 1))
        if self._callbacks.score:
            self._callbacks.update_statistics()
            score = self._score(self._callbacks.score)
            if loop.last and (state.epoch + 1) / phase.epochs >= phase.ready:
                better = state.best is None or score > state.best[0]
                if better:
                    state.best = score, _copy_of_state(self.module)
                state.stale = 0 if better else state.stale + 1
        rate = float(loop.optimizer.param_groups[0]["lr"])
        state.epochs.append(Epoch(phase.name, state.epoch + 1, loss, score, rate, seconds))
        if self._callbacks.log:
            values = {"loss": loss, "rate": rate} | ({} if score is None else {"score": score})
            self._callbacks.log(values, loop.meter.done(state))

    def _score(self, score: Callable[[GraphModule], float]) -> float:
        """The score of the module, the same in all processes: they must agree on when to stop."""
        self.module.eval()
        with torch.no_grad():
            return self._devices.mean(score(self.module))

    def _save(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        if self._devices.rank:
            return
        state = self.state
        checkpoint.save(
            {
                "phase": state.phase,
                "epoch": state.epoch,
                "step": state.step,
                "loss": state.loss,
                "module": self.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": _random_state(),
                "scaler": self._devices.state(),
                "best": state.best,
                "stale": state.stale,
                "snapshots": state.snapshots,
                "epochs": [dataclasses.astuple(epoch) for epoch in state.epochs],
            }
        )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.module.load_state_dict(saved["module"])
        self._devices.restore(saved["scaler"])
        self.state = TrainerState.of(saved)


def _check_position(state: TrainerState, phases: Sequence[Phase], steps: int) -> None:
    """Raises ValueError where a run cannot have been."""
    if not (0 <= state.phase <= len(phases) and state.epoch >= 0 and 0 <= state.step <= steps and state.stale >= 0):
        raise ValueError("no such position")
    if math.isnan(state.loss + 0.0):
        raise ValueError("no such loss")
    best: Any = state.best  # which came from a file
    if best is not None and [type(part) for part in best] != [float, dict]:
        raise ValueError("no such score")


def _check_random_state(state: Mapping[str, Tensor]) -> None:
    """Raises what PyTorch does where the state of a generator is none."""
    torch.Generator().set_state(state["cpu"])


def _copy_of_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _random_state() -> dict[str, Tensor]:
    cuda = {f"cuda:{at}": s for at, s in enumerate(torch.cuda.get_rng_state_all())} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state()} | cuda


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if name == "cpu":
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, name)
