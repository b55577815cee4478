"""Masks that are trained: each weight has a score, and those with the highest scores stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxprune.training import masks
from onnxprune.training.masks import ScoredMask
from onnxprune.training.phase import Phase
from onnxprune.training.recipes.gradual import RAMP, cubic
from onnxprune.training.recipes.run import RecipeRun

__all__ = ["movement", "soft_movement", "supermask"]

_SCORE_RATE = 10.0
"""The learning rate of scores, in learning rates of weights; Sanh et al. too train scores with a much larger one."""
_WARMUP = 0.05
"""Share of the steps before the first weight goes, as that of the learning rate: scores are noise at first."""
_GATE_PENALTY = 1.0
"""The factor of the mean gate in the loss of soft movement pruning; the sparsity does not depend on it here."""


def supermask(run: RecipeRun) -> list[Phase]:
    """Choose among random weights without ever changing one, by scores that are trained (Ramanujan et al. 2020, "edge-popup").

    Random weights have one magnitude in each layer, that of He et al. over the share that stays in all layers together.
    """
    scored = _add_masks(run)
    for name, parameter in run.module.named_parameters():
        parameter.requires_grad_(name.endswith(".scores"))

    @torch.no_grad()
    def begin() -> None:
        run.begin()
        generator = torch.Generator().manual_seed(run.options.seed)
        for name, layer in run.layers.items():
            weight = masks.parameter_of(run.module, name)
            fan = layer.fan_in(weight)
            if run.recipe.start in {"auto", "random"}:
                weight.copy_(weight.sign() * math.sqrt(2 / (fan * (1 - run.recipe.share))))
            scored[name].scores.copy_(torch.rand(weight.shape, generator=generator) / math.sqrt(fan))
        run.prune(_scores_of(scored), run.recipe.share)

    def choose(step: int, steps: int) -> None:
        run.prune(_scores_of(scored), run.recipe.share)

    return [Phase("supermask", run.options.epochs, begin, choose, groups={".scores": _SCORE_RATE * run.options.rate})]


def movement(run: RecipeRun) -> list[Phase]:
    """Keep the weights that move away from zero: scores add up minus weight times gradient (Sanh et al. 2020).

    The sparsity grows as in gradual pruning, after a warm-up; pruned weights come back where their scores rise.
    """
    scored = _add_masks(run)

    def begin() -> None:
        run.begin()
        _zero(scored)

    def choose(step: int, steps: int) -> None:
        run.prune(_scores_of(scored), cubic(run.recipe.share, step / steps, _WARMUP))

    groups = {".scores": _SCORE_RATE * run.options.rate}
    return [Phase("movement", run.options.epochs, begin, choose, ready=RAMP, groups=groups)]


def soft_movement(run: RecipeRun) -> list[Phase]:
    """As movement, but scores of all layers compete through one threshold on their sigmoids, whose mean is part of the loss.

    In the paper the threshold is fixed and the weight of that part decides the sparsity; here the threshold follows the sparsity
    that was asked for.
    """
    scored = _add_masks(run)

    def begin() -> None:
        run.begin()
        _zero(scored)

    def choose(step: int, steps: int) -> None:
        run.prune(_scores_of(scored), cubic(run.recipe.share, step / steps, _WARMUP))

    def pull() -> Tensor:
        return _GATE_PENALTY * torch.cat([torch.sigmoid(one.scores).reshape(-1) for one in scored.values()]).mean()

    groups = {".scores": _SCORE_RATE * run.options.rate}
    return [Phase("soft movement", run.options.epochs, begin, choose, pull, ready=RAMP, groups=groups)]


def _add_masks(run: RecipeRun) -> dict[str, ScoredMask]:
    return masks.add_scored_masks(run.module, {name: torch.zeros_like(run.module.value_of(name).detach()) for name in run.layers})


def _scores_of(scored: dict[str, ScoredMask]) -> dict[str, Tensor]:
    return {name: one.scores for name, one in scored.items()}


@torch.no_grad()
def _zero(scored: dict[str, ScoredMask]) -> None:
    for one in scored.values():
        one.scores.zero_()
