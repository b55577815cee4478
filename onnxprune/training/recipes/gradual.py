"""Sparsity that grows, or is there from the first step, while a model is trained (Zhu and Gupta 2017)."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.training.phase import Phase
from onnxprune.training.recipes.run import RecipeRun

__all__ = ["constant", "cubic", "gradual", "stepwise"]

RAMP = 0.5
"""Share of the steps after which the sparsity is reached: the second half lets the weights that remain recover."""
UPDATES = 100
"""Number of times that masks are made anew in a training: often enough that no update prunes much."""


def cubic(final: float, share: float, begin: float = 0.0, end: float = RAMP) -> float:
    """The sparsity at a share of the steps: ``s (1 - (1 - t)^3)``, with t from 0 to 1 between begin and end."""
    t = min(max((share - begin) / (end - begin), 0.0), 1.0)
    return final * (1 - (1 - t) ** 3)


def stepwise(act: Callable[[float], None]) -> Callable[[int, int], None]:
    """A function for `Phase.each` that acts at each hundredth of the training. It keeps no state, which a kill would lose."""

    def each(step: int, steps: int) -> None:
        if step == 0 or step * UPDATES // steps != (step - 1) * UPDATES // steps:
            act(step / steps)

    return each


def gradual(run: RecipeRun) -> list[Phase]:
    """The smallest weights go step by step, fast at first and slower towards the end."""

    def tighten(share: float) -> None:
        run.prune(run.magnitudes(), cubic(run.recipe.share, share))

    return [Phase("gradual", run.options.epochs, run.begin, stepwise(tighten), ready=RAMP)]


def constant(run: RecipeRun) -> list[Phase]:
    """The smallest weights go at once; then all of a training, with its full learning rate, is under the mask."""

    def begin() -> None:
        run.begin()
        run.prune(run.magnitudes(), run.recipe.share)

    return [Phase("constant", run.options.epochs, begin)]
