"""Sparsity that grows, or is there from the first step, while a model is trained (Zhu and Gupta 2017)."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.training.recipes.registry import Run, method
from onnxprune.training.trainer import Phase

__all__ = ["constant", "cubic", "gradual", "stepwise"]

RAMP = 0.5
"""Share of the steps after which the sparsity is reached."""
UPDATES = 100
"""How often masks are made anew in a training."""


def cubic(final: float, share: float, begin: float = 0.0, end: float = RAMP) -> float:
    """The sparsity at a share of the steps: ``s (1 - (1 - t)^3)``, with t from 0 to 1 between begin and end."""
    t = min(max((share - begin) / (end - begin), 0.0), 1.0)
    return final * (1 - (1 - t) ** 3)


def stepwise(act: Callable[[float], None]) -> Callable[[int, int], None]:
    """Called at every step, acts at each hundredth of the training; it has no memory that a kill could take."""

    def each(step: int, steps: int) -> None:
        if step == 0 or step * UPDATES // steps != (step - 1) * UPDATES // steps:
            act(step / steps)

    return each


@method("gradual", allocation="lamp")
def gradual(run: Run) -> list[Phase]:
    """The smallest weights go step by step, fast at first and slower towards the end."""

    def tighten(share: float) -> None:
        run.prune(run.magnitudes(), cubic(run.recipe.share, share))

    return [Phase("gradual", run.options.epochs, run.begin, stepwise(tighten), ready=RAMP)]


@method("constant", allocation="lamp", rate="training")
def constant(run: Run) -> list[Phase]:
    """The smallest weights go at once; then all of a training, with its full learning rate, is under the mask."""

    def begin() -> None:
        run.begin()
        run.prune(run.magnitudes(), run.recipe.share)

    return [Phase("constant", run.options.epochs, begin)]
