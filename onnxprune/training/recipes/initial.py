"""Pruning before training, by gradients at the first weights."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxprune.torch import criteria
from onnxprune.torch.criteria import BatchDict
from onnxprune.torch.module import GraphModule
from onnxprune.training.phase import Phase
from onnxprune.training.recipes.run import RecipeRun

__all__ = ["grasp", "snip", "synflow"]

_BATCHES = 10
"""Batches over which gradients are averaged: 640 samples of a batch of 64."""
_ROUNDS = 100
"""Rounds in which synflow prunes, as in Tanaka et al. 2020."""
_LABELS = "labels of the batch"
"""The name of labels among inputs; with spaces, so that no input has it."""


def snip(run: RecipeRun) -> list[Phase]:
    """Keep what the loss is sensitive to at the first weights, and train (Lee et al. 2019)."""

    def begin() -> None:
        run.begin()
        run.prune(_train_mode_scores(run, criteria.snip), run.recipe.share)

    return [Phase("snip", run.options.epochs, begin)]


def grasp(run: RecipeRun) -> list[Phase]:
    """Keep what the flow of gradients needs at the first weights, and train (Wang et al. 2020)."""

    def begin() -> None:
        run.begin()
        run.prune(_train_mode_scores(run, criteria.grasp), run.recipe.share)

    return [Phase("grasp", run.options.epochs, begin)]


def synflow(run: RecipeRun) -> list[Phase]:
    """Keep paths of large weights, without data, in a hundred rounds, and train (Tanaka et al. 2020)."""

    def begin() -> None:
        run.begin()
        example = {name: array[:1] for name, array in next(_feeds(run)).items()}
        for turn in range(_ROUNDS):
            run.prune(criteria.synflow(run.module.eval(), example), 1 - (1 - run.recipe.share) ** ((turn + 1) / _ROUNDS))

    return [Phase("synflow", run.options.epochs, begin)]


def _train_mode_scores(
    run: RecipeRun, criterion: Callable[[GraphModule, list[BatchDict], criteria.BatchLoss], criteria.WeightScores]
) -> criteria.WeightScores:
    """Scores in train mode, where normalisations use the statistics of the batch, as in the papers."""
    before = {name: buffer.clone() for name, buffer in run.module.named_buffers()}
    scores = criterion(run.module.train(), _batches(run), _loss(run))
    with torch.no_grad():
        for name, buffer in run.module.named_buffers():
            buffer.copy_(before[name])
    run.module.eval()
    return scores


def _feeds(run: RecipeRun) -> Any:
    return (batch.feeds for batch in run.session.data.epoch(0))


def _batches(run: RecipeRun) -> list[BatchDict]:
    device = run.module.device
    found: list[BatchDict] = []
    for batch in itertools.islice(run.session.data.epoch(0), _BATCHES):
        tensors = run.session.devices.tensors(batch.feeds)
        labels = None if batch.labels is None else torch.as_tensor(batch.labels, device=device)
        found.append(tensors | {_LABELS: labels})
    return found


def _loss(run: RecipeRun) -> criteria.BatchLoss:
    """The loss of the training; where a teacher is its only guide, one that is not flat at the teacher's own weights."""
    trainer = run.session.trainer
    if trainer.step.teacher is not None:
        return criteria.sampled_loss(run.options.seed)
    objective = dataclasses.replace(trainer.step.objective, match=())

    def loss(outputs: dict[str, Tensor], batch: BatchDict) -> Tensor:
        return objective(outputs, None, batch[_LABELS])

    return loss
