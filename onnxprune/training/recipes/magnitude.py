"""Pruning by magnitude, or at random, and training afterwards."""

from __future__ import annotations

from functools import partial

from onnxprune.training import masks
from onnxprune.training.phase import Phase
from onnxprune.training.recipes.run import RecipeRun

__all__ = ["iterative", "oneshot", "random", "scratch"]


def oneshot(run: RecipeRun) -> list[Phase]:
    """Prune once, by a share or by a threshold of each layer, and retrain (Han et al. 2015)."""

    def begin() -> None:
        run.begin()
        scores = run.magnitudes()
        if run.recipe.threshold:
            masks.apply_masks(
                run.module, {n: one >= run.recipe.threshold * run.module.value_of(n).std() for n, one in scores.items()}
            )
        else:
            run.prune(scores, run.recipe.share)

    return [Phase("oneshot", run.options.epochs, begin)]


def iterative(run: RecipeRun) -> list[Phase]:
    """Prune a part of what remains, retrain with a new optimizer, and again (Han et al. 2015)."""
    turns = run.recipe.turns

    def begin(turn: int) -> None:
        if turn == 0:
            run.begin()
        run.prune(run.magnitudes(), sparsity_after(run, turn + 1, turns))

    names = [f"iterative {turn + 1}/{turns}" for turn in range(turns)]
    return [Phase(name, run.options.epochs, partial(begin, turn)) for turn, name in enumerate(names)]


def sparsity_after(run: RecipeRun, turn: int, turns: int) -> float:
    """The share of zeros after some of the rounds, each of which keeps the same part: ``1 - (1 - s)^(turn / turns)``."""
    return float(1 - (1 - run.recipe.share) ** (turn / turns))


def random(run: RecipeRun) -> list[Phase]:
    """Prune weights at random and train."""

    def begin() -> None:
        run.begin()
        run.prune(run.random_scores(), run.recipe.share)

    return [Phase("random", run.options.epochs, begin)]


def scratch(run: RecipeRun) -> list[Phase]:
    """Train new weights under the mask of the largest weights of the model that was given (Liu et al. 2019)."""

    def begin() -> None:
        run.prune(run.magnitudes(), run.recipe.share)
        run.begin()

    return [Phase("scratch", run.options.epochs, begin)]
