"""Pruning by magnitude, or by lot, and training afterwards."""

from __future__ import annotations

from functools import partial

from onnxprune.training import masks
from onnxprune.training.recipes.registry import Run, method
from onnxprune.training.trainer import Phase

__all__ = ["iterative", "oneshot", "random", "scratch"]


@method("oneshot", allocation="lamp")
def oneshot(run: Run) -> list[Phase]:
    """Prune once, by a share or by a threshold of each layer, and retrain (Han et al. 2015)."""

    def begin() -> None:
        run.begin()
        scores = run.magnitudes()
        if run.recipe.threshold:
            masks.mask(run.module, {n: one >= run.recipe.threshold * run.module.value_of(n).std() for n, one in scores.items()})
        else:
            run.prune(scores, run.recipe.share)

    return [Phase("oneshot", run.options.epochs, begin)]


@method("iterative", allocation="lamp")
def iterative(run: Run) -> list[Phase]:
    """Prune a part of what remains, retrain with a new optimizer, and again (Han et al. 2015)."""
    turns = run.recipe.turns

    def begin(turn: int) -> None:
        if turn == 0:
            run.begin()
        run.prune(run.magnitudes(), after(run, turn + 1, turns))

    names = [f"iterative {turn + 1}/{turns}" for turn in range(turns)]
    return [Phase(name, run.options.epochs, partial(begin, turn)) for turn, name in enumerate(names)]


def after(run: Run, turn: int, turns: int) -> float:
    """The share of zeros after some of the turns, each of which leaves the same part of what the one before left."""
    return float(1 - (1 - run.recipe.share) ** (turn / turns))


@method("random", allocation="erk", rate="training")
def random(run: Run) -> list[Phase]:
    """Prune by lot, the same share of every layer, and train."""

    def begin() -> None:
        run.begin()
        run.prune(run.noise(), run.recipe.share)

    return [Phase("random", run.options.epochs, begin)]


@method("scratch", allocation="lamp", start="random")
def scratch(run: Run) -> list[Phase]:
    """The mask of the largest weights of the model as it came, on new weights that are trained (Liu et al. 2019)."""

    def begin() -> None:
        run.prune(run.magnitudes(), run.recipe.share)
        run.begin()

    return [Phase("scratch", run.options.epochs, begin)]
