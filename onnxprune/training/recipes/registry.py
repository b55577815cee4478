"""What a method is given, and where it registers."""

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
from onnxprune.options.train import Sparse, Training
from onnxprune.torch.module import GraphModule, to_module
from onnxprune.training import masks
from onnxprune.training.layers import Layer, reinitialize
from onnxprune.training.session import Session, form_of
from onnxprune.training.trainer import Phase

__all__ = ["Method", "Run", "anew", "method", "methods", "rated"]


@dataclass(frozen=True)
class Method:
    """A method and what its paper does where a user does not say.

    Attributes:
        phases: the phases of its training.
        allocation: one of `onnxprune.options.train.ALLOCATIONS`.
        start: ``given`` or ``random``.
        rate: whether weights that are given are trained with the rate of ``retraining`` or that of a ``training`` from the start.
    """

    phases: Callable[[Run], list[Phase]]
    allocation: str
    start: str
    rate: str = "retraining"


_METHODS: dict[str, Method] = {}


def method(
    name: str, *, allocation: str, start: str = "given", rate: str = "retraining"
) -> Callable[[Callable[[Run], list[Phase]]], Callable[[Run], list[Phase]]]:
    """Register a method.

    Raises:
        ValueError: there is one of that name.
    """

    def register(phases: Callable[[Run], list[Phase]]) -> Callable[[Run], list[Phase]]:
        if name in _METHODS:
            msg = f"there is a method {name!r} already"
            raise ValueError(msg)
        _METHODS[name] = Method(phases, allocation, start, rate)
        return phases

    return register


def methods() -> Mapping[str, Method]:
    """Every method by name."""
    return _METHODS


def anew(recipe: Sparse) -> bool:
    """Whether training begins with weights that are drawn."""
    return (methods()[recipe.method].start if recipe.start == "auto" else recipe.start) == "random"


def rated(recipe: Sparse, options: Training) -> Training:
    """The options with the learning rate that suits a method, where they give none."""
    full = methods()[recipe.method].rate == "training" or anew(recipe)
    return dataclasses.replace(options, lr=options.fresh_rate) if full else options


@dataclass(frozen=True)
class Run:
    """A training that makes a model sparse.

    Attributes:
        session: the module, its data and its trainer.
        recipe: what is asked for.
        layers: whose weights become sparse, by name.
        selection: what stays, by scores and the share that goes: a `Selection` of weights, or of channels.
    """

    session: Session
    recipe: Sparse
    layers: Mapping[str, Layer]
    selection: Callable[[Mapping[str, Tensor], float], Mapping[str, Tensor]]

    @property
    def module(self) -> GraphModule:
        return self.session.module

    @property
    def options(self) -> Training:
        return self.session.options

    def begin(self) -> None:
        """Take the weights that training begins with."""
        start = self.recipe.start
        start = methods()[self.recipe.method].start if start == "auto" else start
        if start == "random":
            reinitialize(self.module, self.options.seed)
            self.session.settle()
        elif start != "given":
            self.take(start)

    def take(self, path: str) -> None:
        """Weights and statistics of a file with the same graph; masks stay.

        Raises:
            ModelError: it is no model.
            OptionError: it has not the same weights.
        """
        source = to_module(form_of(Model.of(Path(path))))
        copy_weights(source, self.module, leave=self.session.added)
        self.session.measure()

    def prune(self, scores: Mapping[str, Tensor], share: float) -> None:
        """Keep the weights with the highest scores, so that a share of them is zero."""
        masks.mask(self.module, self.selection(scores, share))

    def magnitudes(self) -> dict[str, Tensor]:
        """The absolute values of the weights as they act: zero where they are pruned."""
        with torch.no_grad():
            return {name: self.module.value_of(name).abs() for name in self.layers}

    def noise(self) -> dict[str, Tensor]:
        """Random scores."""
        rng = np.random.default_rng(self.options.seed)
        return {name: torch.from_numpy(rng.random(self.module.value_of(name).shape)) for name in self.layers}


@torch.no_grad()
def copy_weights(source: GraphModule, target: GraphModule, leave: Collection[str] = ()) -> None:
    """Weights and statistics of a module, into another one of the same graph, but for some constants.

    Raises:
        OptionError: one is missing, or has another shape.
    """
    from onnxprune.torch.roles import Role

    for name, constant in target.constants.items():
        if constant.role is Role.CONSTANT or name in leave:
            continue
        found = source.constants.get(name)
        if found is None or found.shape != constant.shape:
            raise OptionError(f"{source.title}: has no constant {name!r} of shape {list(constant.shape)}: give the same graph")
        masks.parametrized(target, name).copy_(source.value_of(name))
