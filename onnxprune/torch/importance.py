"""The importance of a model's weights and channels by gradients on calibration samples, as `prune` and `sparsify` use it.

``taylor`` and ``fisher`` measure how the outputs would change, and ``synflow`` follows large weights: they need no labels.
``snip``, ``grasp`` and ``movement`` measure how the loss falls and need labels: without them the gradient at trained weights is
zero or noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.data.calibration import LABELS
from onnxprune.errors import OptionError
from onnxprune.torch import criteria
from onnxprune.torch.losses import Objective
from onnxprune.torch.module import GraphModule, to_module

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["channel_importance", "weight_importance"]

_SINGLES = 512
"""The Fisher matrix is the mean over at most so many single samples: each is a pass forward and backward of its own."""
_EPOCHS = 5
"""Passes over the samples with which movement fine-tunes; calibration samples are few."""
_RATE = 1e-3
"""The learning rate that movement fine-tunes with."""


def weight_importance(model: Model, criterion: str, feeds: CalibrationFeeds, seed: int = 0) -> dict[str, Array]:
    """The importance of each weight that is trained, by its name, in its shape; may be negative.

    Args:
        model: in float32.
        criterion: one of `onnxprune.options.prune.GRADIENT`.
        feeds: calibration samples.
        seed: of the labels that are drawn where there are none.

    Raises:
        ModelError: the graph cannot be computed in PyTorch.
        OptionError: the criterion needs labels, and there are none.
    """
    return {name: score.float().cpu().numpy() for name, score in _weight_scores(to_module(model), criterion, feeds, seed).items()}


def channel_importance(
    model: Model, coupling: Coupling, criterion: str, feeds: CalibrationFeeds, seed: int = 0
) -> dict[str, Array]:
    """The importance of each position of each coupling group, by its id; arguments and errors as those of `weight_importance`."""
    module = to_module(model)
    if criterion in {"taylor", "fisher"}:  # a channel counts by what its weights do together
        return criteria.channel_scores(module, model, coupling, _batches_for(criterion, feeds), criteria.sampled_loss(seed))
    return criteria.summed_over_channels(_weight_scores(module, criterion, feeds, seed), model, coupling)


def _weight_scores(module: GraphModule, criterion: str, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    if criterion == "synflow":
        return criteria.synflow(module, next(criteria.single_samples(feeds)))
    if criterion in {"taylor", "fisher"}:
        formula = criteria.taylor if criterion == "taylor" else criteria.fisher
        return formula(module, _batches_for(criterion, feeds), criteria.sampled_loss(seed))
    batches = [*feeds.labelled()]
    if not batches or any(LABELS not in batch for batch in batches):
        raise OptionError(
            f"{criterion} asks how a loss falls: give --calib DATA with labels, by the name label, or use taylor or fisher"
        )
    return _BY_LABELS[criterion](module, batches, _label_loss(module, batches[0]))


def _batches_for(criterion: str, feeds: CalibrationFeeds) -> Iterable[Mapping[str, Array]]:
    return islice(criteria.single_samples(feeds), _SINGLES) if criterion == "fisher" else feeds


def _label_loss(module: GraphModule, batch: Mapping[str, Array]) -> criteria.BatchLoss:
    """Cross-entropy where labels are classes, else the squared error."""
    classes = np.issubdtype(batch[LABELS].dtype, np.integer)
    objective = Objective.of("cross_entropy" if classes else "mse", module, None, (), 0.0, 1.0)

    def loss(outputs: dict[str, Tensor], batch: criteria.BatchDict) -> Tensor:
        return objective(outputs, None, torch.as_tensor(batch[LABELS], device=module.device))

    return loss


def _movement(module: GraphModule, batches: Sequence[criteria.BatchDict], loss: criteria.BatchLoss) -> criteria.WeightScores:
    """Movement over a short fine-tuning (Sanh et al. 2020). Changes the module, which no other caller has."""
    optimizer, movement = torch.optim.SGD(module.parameters(), _RATE, 0.9), criteria.Movement(module)
    for batch in [*batches] * _EPOCHS:
        optimizer.zero_grad()
        loss(module.compute({name: batch[name] for name in module.inputs}), batch).backward()
        movement.update()
        optimizer.step()
    return movement.scores


_BY_LABELS: Mapping[str, Callable[[GraphModule, Sequence[criteria.BatchDict], criteria.BatchLoss], criteria.WeightScores]] = {
    "snip": criteria.snip, "grasp": criteria.grasp, "movement": _movement,
}  # fmt: skip
