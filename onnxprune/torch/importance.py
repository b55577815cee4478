"""The importance of a model's weights and channels by gradients on calibration samples, as `prune` and `sparsify` use it.

``taylor`` and ``fisher`` measure how the outputs would change, and ``synflow`` follows large weights: they need no labels.
``snip``, ``grasp`` and ``movement`` measure how the loss falls and need labels: without them the gradient at trained weights is
zero or noise.

A criterion here is a function of a module, samples and a seed, and gives the scores of weights by name;
`onnxprune.pruning.gradient_criteria` registers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.data.calibration import LABELS
from onnxprune.errors import OptionError
from onnxprune.options.registries import CRITERIA
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
        criterion: one of those of `onnxprune.pruning.gradient_criteria`.
        feeds: calibration samples.
        seed: of the labels that are drawn where there are none.

    Raises:
        ModelError: the graph cannot be computed in PyTorch.
        OptionError: the criterion needs labels, and there are none.
    """
    found = CRITERIA[criterion].value(to_module(model), feeds, seed)
    return {name: score.float().cpu().numpy() for name, score in found.items()}


def channel_importance(
    model: Model, coupling: Coupling, criterion: str, feeds: CalibrationFeeds, seed: int = 0
) -> dict[str, Array]:
    """The importance of each position of each coupling group, by its id; arguments and errors as those of `weight_importance`."""
    module = to_module(model)
    if criterion in {"taylor", "fisher"}:  # a channel counts by what its weights do together
        batches = feeds if criterion == "taylor" else _single(feeds)
        return criteria.channel_scores(module, model, coupling, batches, criteria.sampled_loss(seed))
    return criteria.summed_over_channels(CRITERIA[criterion].value(module, feeds, seed), model, coupling)


def taylor(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    return criteria.taylor(module, feeds, criteria.sampled_loss(seed))


def fisher(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    return criteria.fisher(module, _single(feeds), criteria.sampled_loss(seed))


def synflow(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    return criteria.synflow(module, next(criteria.single_samples(feeds)))


def snip(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    batches = _labelled("snip", feeds)
    return criteria.snip(module, batches, _label_loss(module, batches[0]))


def grasp(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    batches = _labelled("grasp", feeds)
    return criteria.grasp(module, batches, _label_loss(module, batches[0]))


def movement(module: GraphModule, feeds: CalibrationFeeds, seed: int) -> criteria.WeightScores:
    """Movement over a short fine-tuning (Sanh et al. 2020). Changes the module, which no other caller has."""
    batches = _labelled("movement", feeds)
    loss = _label_loss(module, batches[0])
    optimizer, moved = torch.optim.SGD(module.parameters(), _RATE, 0.9), criteria.Movement(module)
    for batch in batches * _EPOCHS:
        optimizer.zero_grad()
        loss(module.compute({name: batch[name] for name in module.inputs}), batch).backward()
        moved.update()
        optimizer.step()
    return moved.scores


def _single(feeds: CalibrationFeeds) -> Iterable[Mapping[str, Array]]:
    return islice(criteria.single_samples(feeds), _SINGLES)


def _labelled(criterion: str, feeds: CalibrationFeeds) -> list[Mapping[str, Array]]:
    """The batches, which have labels.

    Raises:
        OptionError: they have none.
    """
    batches = [*feeds.labelled()]
    if not batches or any(LABELS not in batch for batch in batches):
        raise OptionError(
            f"{criterion} asks how a loss falls: give --calib DATA with labels, by the name label, or use taylor or fisher"
        )
    return batches


def _label_loss(module: GraphModule, batch: Mapping[str, Array]) -> criteria.BatchLoss:
    """Cross-entropy where labels are classes, else the squared error."""
    classes = np.issubdtype(batch[LABELS].dtype, np.integer)
    objective = Objective.of("cross_entropy" if classes else "mse", module, None, (), 0.0, 1.0)

    def loss(outputs: dict[str, Tensor], batch: criteria.BatchDict) -> Tensor:
        return objective(outputs, None, torch.as_tensor(batch[LABELS], device=module.device))

    return loss
