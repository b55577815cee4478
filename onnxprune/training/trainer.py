"""The loop that trains a module: phases, one after the other, that can be interrupted anywhere and go on as if nothing was.

Everything that the next step depends on is in a checkpoint: weights, masks, the state of the optimizer, the place in the data and
the state of the random generators. The order of the samples follows from the seed and the number of the epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onnxprune.errors import RequirementError
from onnxprune.options.train import Training
from onnxprune.torch.losses import Objective
from onnxprune.torch.module import GraphModule
from onnxprune.training.data import Data, seed_all
from onnxprune.training.devices import Devices

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.training.augment import Augment
    from onnxprune.training.checkpoint import Checkpoint

__all__ = ["Epoch", "Phase", "Trainer"]

Tell = Callable[[str], None]
_APART = 1000
"""Numbers of epochs between phases: each has orders of its own."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimizer of its own.

    Attributes:
        name: what it is called in progress and reports.
        epochs: how long.
        begin: called before it, once; prunes or rewinds.
        each: called before each step with its number, from 0, and how many the phase has; tightens masks.
        penalty: added to the loss of each step.
        factor: of the learning rate, at a share of the phase; as the options say if ``None``.
        ready: share of the phase from which on its states may be the result.
        end: called after it, once.
        groups: parameters by the end of their names that have a learning rate of their own, which decay does not touch.
        snapshot: number of the epoch before which the weights are kept, for rewinding; below 0 for none.
    """

    name: str
    epochs: int
    begin: Callable[[], None] | None = None
    each: Callable[[int, int], None] | None = None
    penalty: Callable[[], Tensor] | None = None
    factor: Callable[[float], float] | None = None
    ready: float = 0.0
    end: Callable[[], None] | None = None
    groups: Mapping[str, float] = field(default_factory=dict)
    snapshot: int = -1


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        phase: the name of its phase.
        number: of the epoch in it, from 1; 0 is what it begins with, which has no loss.
        loss: the mean over its steps.
        score: on evaluation samples, if there are any.
        rate: the learning rate of its last step.
        seconds: how long it took.
    """

    phase: str
    number: int
    loss: float
    score: float | None
    rate: float
    seconds: float


@dataclass(slots=True)
class _Place:
    """Where a training is: its phase, the epoch in it, steps in that, and the sum of their losses."""

    phase: int
    epoch: int
    step: int = 0
    loss: float = 0.0


class _Student(nn.Module):
    """A graph that puts out what a loss asks for; what is wrapped for several devices."""

    def __init__(self, graph: GraphModule, wanted: Sequence[str]) -> None:
        super().__init__()
        self.graph, self.wanted = graph, tuple(wanted)

    def forward(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.graph.compute(feeds, self.wanted)


class Trainer:
    """Trains a module in phases.

    Attributes:
        module: is changed.
        epochs: what each epoch came to.
        objective: the loss.
        snapshots: weights that were kept for rewinding, by names of parameters and buffers.
    """

    def __init__(
        self,
        module: GraphModule,
        data: Data,
        options: Training,
        where: Devices,
        *,
        teacher: GraphModule | None = None,
        augment: Augment | None = None,
        score: Callable[[GraphModule], float] | None = None,
        settle: Callable[[], None] = lambda: None,
        checkpoint: Checkpoint | None = None,
        tell: Tell = lambda _: None,
        log: Callable[[Mapping[str, float], int], None] | None = None,
    ) -> None:
        """Get ready.

        Args:
            module: what is trained; with all masks that it will have, since a checkpoint knows only those.
            data: samples.
            options: how; the loss must be settled.
            where: the devices.
            teacher: what is right.
            augment: changes what is trained on.
            score: of the module in evaluation mode; higher is better.
            settle: called before a module is judged or is the result; makes statistics those of its weights.
            checkpoint: where the run is kept.
            tell: told how it goes, several times a second at most.
            log: called after each epoch with numbers by name and the number of steps so far.

        Raises:
            OptionError: there is no such loss, or student and teacher do not go together.
        """
        self.module, self.options, self.epochs = module.to(where.device), options, list[Epoch]()
        self.snapshots: dict[str, Tensor] = {}
        self._data, self._where, self._score, self._checkpoint, self._log = data, where, score, checkpoint, log
        self._augment, self._settle = augment, settle
        self.teacher = None if teacher is None else teacher.to(where.device).eval()
        self.objective = Objective.of(options.loss, module, teacher, options.match, options.match_weight, options.temperature)
        self._tell, self._told, self._done, self._skipped, self._begun = tell, 0.0, 0, 0, time.monotonic()
        self._best: tuple[float, dict[str, Tensor]] | None = None
        self._stale = 0

    def run(self, phases: Sequence[Phase]) -> None:
        """Train; the module is then what scored best in the last phase, or what that ended with.

        Raises:
            RequirementError: the loss is not a finite number any more.
        """
        state = self._checkpoint.load() if self._checkpoint else None
        first = 0
        if state is not None:
            first = state["phase"]
            self._restore(state)
        self._total = sum(phase.epochs for phase in phases) * self._data.steps
        for number, phase in enumerate(phases):
            if number < first:
                self._done += phase.epochs * self._data.steps
                continue
            resumed = state if number == first else None
            if resumed is not None:
                self._skipped = self._done + resumed["epoch"] * self._data.steps + resumed["step"]
            self._phase(phase, number, resumed, last=number == len(phases) - 1)
        if self._best is not None:
            self.module.load_state_dict(self._best[1])
        else:
            self._settle()
        self.module.eval()

    def _phase(self, phase: Phase, number: int, state: dict[str, Any] | None, *, last: bool) -> None:
        steps = self._data.steps
        if state is None:
            self._enter(phase, number)
        student = _Student(self.module, (*self.objective.outputs, *self.objective.match))
        model, optimizer = self._where.prepare(student, _optimizer(self.module, self.options, phase.groups))
        first = 0
        if state is not None:
            first = state["epoch"]
            optimizer.load_state_dict(state["optimizer"])
            self._done += first * steps + state["step"]
        for epoch in range(first, phase.epochs):
            if self.options.patience and self._stale >= self.options.patience:
                self._done += (phase.epochs - epoch) * steps
                break
            self._epoch(phase, _Place(number, epoch), model, optimizer, state if epoch == first else None, last=last)
        if phase.end:
            phase.end()

    def _enter(self, phase: Phase, number: int) -> None:
        """Begin a phase, and note the score that it begins with."""
        if phase.begin:
            phase.begin()
            if self._score:
                self.epochs.append(Epoch(phase.name, 0, math.nan, self._judged(self._score), 0.0, 0.0))
        self._best, self._stale = None, 0
        seed_all(self.options.seed, number)

    def _epoch(
        self,
        phase: Phase,
        place: _Place,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any] | None,
        *,
        last: bool,
    ) -> None:
        steps, begun = self._data.steps, time.monotonic()
        if state is not None:
            place.step, place.loss = state["step"], state["loss"]
        if place.epoch == phase.snapshot and not place.step:
            self.snapshots = _copied(self.module)
        number = place.epoch + _APART * place.phase
        batches = self._data.epoch(number, place.step)
        if self._augment:
            batches = self._augment(batches, number, place.step)
        if state is not None:
            _set_random(state["random"])  # after the batches that have been seen were drawn again
        for batch in batches:
            done, length = place.epoch * steps + place.step, phase.epochs * steps
            if phase.each:
                phase.each(done, length)
            factor = (phase.factor or self.options.factor)((done + 0.5) / length)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            place.loss += self._step(model, optimizer, batch, phase)
            place.step += 1
            self._done += 1
            self._progress(phase, place)
            if self._checkpoint and self._checkpoint.due:
                self._keep(place, optimizer)
        loss = self._where.mean(place.loss / max(place.step, 1))
        self._finish(phase, place.epoch, loss, optimizer, time.monotonic() - begun, last=last)
        if self._checkpoint:
            self._keep(_Place(place.phase, place.epoch + 1), optimizer)

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, phase: Phase) -> float:
        feeds = self._where.tensors(batch.feeds)
        labels = None if batch.labels is None else torch.as_tensor(batch.labels, device=self._where.device)
        given = None
        if self.teacher is not None:
            wanted = (*self.objective.reference, *self.objective.match)
            with torch.no_grad(), self._where.autocast():
                given = self.teacher.compute(feeds, wanted)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with self._where.autocast():
            loss = self.objective(model(feeds), given, labels)
        if phase.penalty:
            loss = loss + phase.penalty()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RequirementError(
                f"{self.module.title}: the loss is {value} in {phase.name}: make --lr smaller, or set --clip 1 or --warmup 0.1"
            )
        parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        self._where.step(loss, parameters, optimizer, self.options.clip)
        return value

    def _finish(
        self, phase: Phase, epoch: int, loss: float, optimizer: torch.optim.Optimizer, seconds: float, *, last: bool
    ) -> None:
        """Judge an epoch, and remember its weights if they are the best."""
        score = None
        if self._score:
            self._settle()
            score = self._judged(self._score)
            if last and (epoch + 1) / phase.epochs >= phase.ready:
                better = self._best is None or score > self._best[0]
                if better:
                    self._best = score, _copied(self.module)
                self._stale = 0 if better else self._stale + 1
        rate = float(optimizer.param_groups[0]["lr"])
        self.epochs.append(Epoch(phase.name, epoch + 1, loss, score, rate, seconds))
        if self._log:
            self._log({"loss": loss, "rate": rate} | ({} if score is None else {"score": score}), self._done)

    def _judged(self, score: Callable[[GraphModule], float]) -> float:
        """The same in all processes: whether they stop hangs on it."""
        self.module.eval()
        with torch.no_grad():
            return self._where.mean(score(self.module))

    def _progress(self, phase: Phase, place: _Place) -> None:
        now = time.monotonic()
        if now - self._told < 0.2:
            return
        self._told = now
        left = (now - self._begun) / max(self._done - self._skipped, 1) * max(self._total - self._done, 0)
        score = next((f", score {e.score:.4f}" for e in reversed(self.epochs) if e.score is not None), "")
        loss = place.loss / place.step
        self._tell(f"{phase.name}: epoch {place.epoch + 1}/{phase.epochs}, loss {loss:.4f}{score}, {left:.0f} s left")

    def _keep(self, place: _Place, optimizer: torch.optim.Optimizer) -> None:
        assert self._checkpoint is not None  # noqa: S101 - asked before
        if self._where.rank:
            return
        self._checkpoint.save(
            {
                **dataclasses.asdict(place),
                "module": self.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": _random(),
                "scaler": self._where.state(),
                "best": self._best,
                "stale": self._stale,
                "snapshots": self.snapshots,
                "epochs": [dataclasses.astuple(one) for one in self.epochs],
            }
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self._where.restore(state["scaler"])
        self._best, self._stale, self.snapshots = state["best"], state["stale"], state["snapshots"]
        self.epochs = [Epoch(*values) for values in state["epochs"]]


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _random() -> dict[str, Tensor]:
    cuda = {f"cuda:{at}": s for at, s in enumerate(torch.cuda.get_rng_state_all())} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state()} | cuda


def _set_random(state: dict[str, Tensor]) -> None:
    for name, value in state.items():
        if name == "cpu":
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, name)


def _optimizer(module: nn.Module, options: Training, groups: Mapping[str, float]) -> torch.optim.Optimizer:
    """An optimizer of the weights; of biases and scales without decay. Groups know the largest rate they get, as ``peak``."""

    def special(name: str) -> str | None:
        return next((end for end in groups if name.endswith(end)), None)

    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sorts: list[dict[str, Any]] = [
        {"params": [p for n, p in named if p.dim() > 1 and not special(n)], "peak": options.rate},
        {"params": [p for n, p in named if p.dim() <= 1 and not special(n)], "peak": options.rate, "weight_decay": 0.0},
        *(
            {"params": [p for n, p in named if special(n) == end], "peak": rate, "weight_decay": 0.0}
            for end, rate in groups.items()
        ),
    ]
    sorts = [sort for sort in sorts if sort["params"]]
    if not sorts:
        raise RequirementError("the module has no weight to train")
    lr, decay, momentum = options.rate, options.weight_decay, options.momentum
    if options.optimizer == "sgd":
        return torch.optim.SGD(sorts, lr, momentum, weight_decay=decay, nesterov=momentum > 0)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(sorts, lr, momentum=momentum, weight_decay=decay)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(sorts, lr, weight_decay=decay)
