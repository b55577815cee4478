"""Training that makes a model sparse: one of the recipes, from a file to a file."""

from __future__ import annotations

import dataclasses

import torch

from onnxprune.ir.model import ModelSource
from onnxprune.options.registries import TRAININGS
from onnxprune.options.train import Sparse, Training
from onnxprune.sparse.patterns import parse_pattern
from onnxprune.training import masks
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.layers import prunable_layers
from onnxprune.training.progress import Tell
from onnxprune.training.recipes.run import RecipeRun, starts_fresh, with_rate
from onnxprune.training.session import TrainedModel, TrainingSession
from onnxprune.training.weight_selection import WeightSelection

__all__ = ["train_weights"]


def train_weights(
    source: ModelSource,
    inputs: TrainingInputs,
    recipe: Sparse | None = None,
    options: Training | None = None,
    *,
    progress: Tell | None = None,
) -> TrainedModel:
    """Make a model sparse while it is trained; the graph stays as it is.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        inputs: samples, teacher and files.
        recipe: the method, and how many weights become zero.
        options: of the training; the epochs are those of each phase, and some methods have several.
        progress: called with the progress.

    Raises:
        ModelError: a model cannot be read, or cannot be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        RequirementError: training diverged.
    """
    recipe, options = recipe or Sparse(), options or Training()
    method = TRAININGS[recipe.method].value
    itself = "unlabelled" if starts_fresh(recipe) else "always"
    session = TrainingSession(
        source, inputs, with_rate(recipe, options), itself=itself, sparse=True, tell=progress, run=str(recipe)
    )
    found = prunable_layers(session.module, recipe.protect)
    allocation = method.allocation if recipe.allocation == "auto" else recipe.allocation
    pattern = parse_pattern(recipe.pattern)
    device = session.devices.device
    ones = {name: torch.ones(session.module.value_of(name).shape, dtype=torch.bool, device=device) for name in found}
    masks.apply_masks(session.module, {name: one for name, one in ones.items() if name not in masks.masks_of(session.module)})
    run = RecipeRun(session, recipe, found, WeightSelection(found, allocation, pattern))
    trained = session.train(method.phases(run))
    weights = {name: session.module.value_of(name) for name in found}
    report = {**trained.report, "recipe": recipe.to_dict(), "sparsity": masks.sparsity(weights)}
    report["layers"] = {name: masks.sparsity({name: weight}) for name, weight in weights.items()}
    return dataclasses.replace(trained, report=report)
