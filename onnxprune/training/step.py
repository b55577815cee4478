"""One step of training: the loss of a batch, its gradients, and the optimizer that changes the weights by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onnxprune.errors import ModelError, RequirementError
from onnxprune.options.train import Training
from onnxprune.torch.losses import Objective
from onnxprune.torch.module import GraphModule
from onnxprune.training.devices import Devices

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.training.phase import Phase

__all__ = ["TrainingStep", "make_optimizer"]

_SMALLEST, _SMALLEST_BIAS = 0.01, 0.1
"""A smaller weight, and a smaller bias or scale, counts as that large: zeros must be able to grow."""


class _Student(nn.Module):
    """A graph that outputs the values that a loss reads; this is the module that is wrapped for several devices."""

    def __init__(self, graph: GraphModule, wanted: Sequence[str]) -> None:
        super().__init__()
        self.graph, self.wanted = graph, tuple(wanted)

    def forward(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.graph.compute(feeds, self.wanted)


class TrainingStep:
    """Computes the loss of a batch and changes the weights by its gradients.

    Attributes:
        objective: the loss.
        teacher: the module whose outputs are right, in evaluation mode.
    """

    def __init__(self, module: GraphModule, options: Training, devices: Devices, teacher: GraphModule | None) -> None:
        """Move the teacher to the device and choose the loss.

        Raises:
            OptionError: there is no such loss, or module and teacher do not go together.
        """
        self.teacher = None if teacher is None else teacher.to(devices.device).eval()
        self.objective = Objective.of(options.loss, module, teacher, options.match, options.match_weight, options.temperature)
        self._module, self._devices, self._options = module, devices, options

    def student(self) -> nn.Module:
        """The module, with the values that the loss reads as its outputs."""
        return _Student(self._module, (*self.objective.outputs, *self.objective.match))

    def __call__(self, student: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, phase: Phase) -> float:
        """Change the weights by the gradients of the loss of a batch; returns the loss.

        Args:
            student: made by `student`, and prepared for the devices.
            optimizer: of its weights.
            batch: samples, and their labels if there are some.
            phase: whose penalty is added to the loss.

        Raises:
            ModelError: the loss does not depend on the weights.
            RequirementError: the loss is not a finite number.
        """
        feeds = self._devices.tensors(batch.feeds)
        labels = None if batch.labels is None else torch.as_tensor(batch.labels, device=self._devices.device)
        given = None
        if self.teacher is not None:
            wanted = (*self.objective.reference, *self.objective.match)
            with torch.no_grad(), self._devices.autocast():
                given = self.teacher.compute(feeds, wanted)
        student.train()
        optimizer.zero_grad(set_to_none=True)
        with self._devices.autocast():
            loss = self.objective(student(feeds), given, labels)
        if phase.penalty:
            loss = loss + phase.penalty()
        if not loss.requires_grad:
            raise ModelError(f"{self._module.title}: no output that the loss reads depends on a weight: nothing can be trained")
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RequirementError(
                f"{self._module.title}: the loss is {value} in {phase.name}: make --lr smaller, or set --clip 1 or --warmup 0.1"
            )
        parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        self._devices.step(loss, parameters, optimizer, self._options.bound if phase.sized else self._options.clip)
        return value


def make_optimizer(
    module: nn.Module, options: Training, groups: Mapping[str, float], share: float = 0.0
) -> torch.optim.Optimizer:
    """An optimizer of the weights that are trained. Biases and scales have no weight decay.

    Each parameter group has its largest learning rate as ``peak``.

    Args:
        module: whose parameters are trained.
        options: the optimizer and its numbers.
        groups: the largest learning rate of parameters whose names end so.
        share: the largest learning rate of each other parameter, as a share of its size; 0 for that of the options.

    Raises:
        RequirementError: no parameter is trained.
    """

    def ending(name: str) -> str | None:
        return next((end for end in groups if name.endswith(end)), None)

    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    free = [p for name, p in named if not ending(name)]
    parts: list[dict[str, Any]] = [
        *({"params": few, "peak": rate} for rate, few in _by_rate([p for p in free if p.dim() > 1], options.rate, share)),
        *(
            {"params": few, "peak": rate, "weight_decay": 0.0}
            for rate, few in _by_rate([p for p in free if p.dim() <= 1], options.rate, share)
        ),
        *(
            {"params": [p for n, p in named if ending(n) == end], "peak": rate, "weight_decay": 0.0}
            for end, rate in groups.items()
        ),
    ]
    parts = [part for part in parts if part["params"]]
    if not parts:
        raise RequirementError("the module has no weight to train")
    lr, decay, momentum = options.rate, options.weight_decay, options.momentum
    if options.optimizer == "sgd":
        return torch.optim.SGD(parts, lr, momentum, weight_decay=decay, nesterov=momentum > 0)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parts, lr, momentum=momentum, weight_decay=decay)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(parts, lr, weight_decay=decay)


def _by_rate(parameters: Sequence[Tensor], rate: float, share: float) -> list[tuple[float, list[Tensor]]]:
    """Parameters by their largest learning rate: one for all, or each a share of its size, the root mean square without zeros."""
    if not share:
        return [(rate, [*parameters])]
    found = []
    for one in parameters:
        size = float(one.detach().float().norm()) / math.sqrt(max(int(one.count_nonzero()), 1))
        found.append((share * max(size, _SMALLEST if one.dim() > 1 else _SMALLEST_BIAS), [one]))
    return found
