"""Training that makes a model sparse: one of the recipes, from a file to a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from onnxprune.ir.model import Source
from onnxprune.options.train import Sparse, Training
from onnxprune.sparse.patterns import parse_pattern
from onnxprune.training import masks
from onnxprune.training.layers import layers
from onnxprune.training.recipes import Run, anew, methods, rated
from onnxprune.training.selection import Selection
from onnxprune.training.session import Material, Session, Tuned

__all__ = ["train"]


def train(
    source: Source,
    material: Material,
    recipe: Sparse | None = None,
    options: Training | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Make a model sparse while it is trained; the graph stays as it is.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        material: what to train with.
        recipe: how it becomes sparse.
        options: how it is trained; the epochs are those of each training, of which some methods do many.
        progress: told how it goes.

    Raises:
        ModelError: a model cannot be read, or not be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        RequirementError: training diverged.
    """
    recipe, options = recipe or Sparse(), options or Training()
    method = methods()[recipe.method]
    itself = "unlabelled" if anew(recipe) else "always"
    session = Session(source, material, rated(recipe, options), itself=itself, sparse=True, tell=progress, run=str(recipe))
    found = layers(session.module, recipe.protect)
    allocation = method.allocation if recipe.allocation == "auto" else recipe.allocation
    pattern = parse_pattern(recipe.pattern)
    device = session.where.device
    ones = {name: torch.ones(session.module.value_of(name).shape, dtype=torch.bool, device=device) for name in found}
    masks.mask(session.module, {name: one for name, one in ones.items() if name not in masks.masks_of(session.module)})
    run = Run(session, recipe, found, Selection(found, allocation, pattern))
    tuned = session.train(method.phases(run))
    weights = {name: session.module.value_of(name) for name in found}
    report = {**tuned.report, "recipe": recipe.to_dict(), "sparsity": masks.sparsity(weights)}
    report["layers"] = {name: masks.sparsity({name: weight}) for name, weight in weights.items()}
    return dataclasses.replace(tuned, report=report)
