"""The run that a method is given: a model in training, and what can be done to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.options.registries import TRAININGS
from onnxprune.options.train import Sparse, Training
from onnxprune.torch.module import GraphModule, to_module
from onnxprune.training import masks
from onnxprune.training.layers import PrunableLayer, reinitialize
from onnxprune.training.session import TrainingSession
from onnxprune.training.student import trainable_form

__all__ = ["RecipeRun", "starts_fresh", "with_rate"]


def starts_fresh(recipe: Sparse) -> bool:
    """True if training begins with random weights."""
    return (TRAININGS[recipe.method].value.start if recipe.start == "auto" else recipe.start) == "random"


def with_rate(recipe: Sparse, options: Training) -> Training:
    """The options with the learning rate of a method, if they give none."""
    full = TRAININGS[recipe.method].value.rate == "training" or starts_fresh(recipe)
    return dataclasses.replace(options, lr=options.fresh_rate) if full else options


@dataclass(frozen=True)
class RecipeRun:
    """A training by a recipe, which makes a model sparse or its channels zero.

    Attributes:
        session: the module, its data and its trainer.
        recipe: the method and its numbers.
        layers: whose weights become sparse, by the names of these.
        selection: chooses what is kept, by scores and the share that goes: a `WeightSelection` or a `ChannelSelection`.
    """

    session: TrainingSession
    recipe: Sparse
    layers: Mapping[str, PrunableLayer]
    selection: Callable[[Mapping[str, Tensor], float], Mapping[str, Tensor]]

    @property
    def module(self) -> GraphModule:
        return self.session.module

    @property
    def options(self) -> Training:
        return self.session.options

    def begin(self) -> None:
        """Take the weights that training begins with: those of the model, random ones, or those of a file."""
        start = self.recipe.start
        start = TRAININGS[self.recipe.method].value.start if start == "auto" else start
        if start == "random":
            reinitialize(self.module, self.options.seed)
            self.session.student.update_statistics()
        elif start != "given":
            self.load_weights(start)

    def load_weights(self, path: str) -> None:
        """Take the weights and statistics of a file with the same graph; masks stay.

        Raises:
            ModelError: it is no model.
            OptionError: a weight is missing, or has another shape.
        """
        source = to_module(trainable_form(Model.of(Path(path))))
        copy_weights(source, self.module, exclude=self.session.student.added)
        self.session.student.initialize_norms()

    def prune(self, scores: Mapping[str, Tensor], share: float) -> None:
        """Keep the weights with the highest scores, so that a share of them is zero."""
        masks.apply_masks(self.module, self.selection(scores, share))

    def magnitudes(self) -> dict[str, Tensor]:
        """The absolute values of the weights, zero where they are masked."""
        with torch.no_grad():
            return {name: self.module.value_of(name).abs() for name in self.layers}

    def random_scores(self) -> dict[str, Tensor]:
        """Random scores between 0 and 1, of the shapes of the weights."""
        rng = np.random.default_rng(self.options.seed)
        return {name: torch.from_numpy(rng.random(self.module.value_of(name).shape)) for name in self.layers}


@torch.no_grad()
def copy_weights(source: GraphModule, target: GraphModule, exclude: Collection[str] = ()) -> None:
    """Copy weights and statistics into another module of the same graph, except some constants.

    Raises:
        OptionError: one is missing, or has another shape.
    """
    from onnxprune.torch.roles import Role

    for name, constant in target.constants.items():
        if constant.role is Role.CONSTANT or name in exclude:
            continue
        found = source.constants.get(name)
        if found is None or found.shape != constant.shape:
            raise OptionError(f"{source.title}: has no constant {name!r} of shape {list(constant.shape)}: give the same graph")
        masks.parameter_of(target, name).copy_(source.value_of(name))
