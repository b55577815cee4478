"""Training again from earlier weights, or with the earlier learning rate, under the mask that a training found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from onnxprune.training.phase import Phase
from onnxprune.training.recipes.magnitude import sparsity_after
from onnxprune.training.recipes.run import RecipeRun

__all__ = ["lottery", "rate_rewinding", "weight_rewinding"]


def lottery(run: RecipeRun) -> list[Phase]:
    """Train, prune, go back to the first weights or early ones, train again, and so on (Frankle and Carbin 2019).

    With a file to go back to, the model that was given is the trained one. With ``epoch:N`` the run trains it itself, from new
    weights unless told otherwise, and goes back to its weights before epoch N (Frankle et al. 2020, late rewinding).
    """
    return _rewound(run, run.recipe.rewind if run.recipe.rewind != "auto" else "epoch:0")


def weight_rewinding(run: RecipeRun) -> list[Phase]:
    """As the lottery, going back to weights and learning rate of a fifth of the training (Renda et al. 2020)."""
    late = f"epoch:{max(1, run.options.epochs // 5)}"
    return _rewound(run, late if run.recipe.rewind == "auto" else run.recipe.rewind)


def rate_rewinding(run: RecipeRun) -> list[Phase]:
    """Prune a part of what remains and train with the whole schedule of the learning rate, and again (Renda et al. 2020)."""
    turns = run.recipe.turns

    def begin(turn: int) -> None:
        if turn == 0:
            run.begin()
        run.prune(run.magnitudes(), sparsity_after(run, turn + 1, turns))

    return [Phase(f"rate rewinding {turn + 1}/{turns}", run.options.epochs, partial(begin, turn)) for turn in range(turns)]


def _rewound(run: RecipeRun, to: str) -> list[Phase]:
    turns, epochs = run.recipe.turns, run.options.epochs
    early = int(to.removeprefix("epoch:")) if to.startswith("epoch:") else -1
    early = min(early, epochs - 1)

    def begin(turn: int) -> None:
        scores = run.magnitudes()
        rewind(run, to)
        run.prune(scores, sparsity_after(run, turn + 1, turns))

    first = [Phase("train", epochs, run.begin, snapshot=early)] if early >= 0 else []
    done = max(early, 0)
    name = run.recipe.method.replace("_", " ")
    return first + [
        Phase(f"{name} {turn + 1}/{turns}", epochs - done, partial(begin, turn), factor=_schedule_from(run, done / epochs))
        for turn in range(turns)
    ]


def _schedule_from(run: RecipeRun, done: float) -> Callable[[float], float]:
    """The part of the learning rate's schedule that begins at a share of it, over a whole phase."""
    return lambda share: run.options.factor(done + share * (1 - done))


def rewind(run: RecipeRun, to: str) -> None:
    """Take the weights of a file, or of the snapshot; masks stay."""
    if not to.startswith("epoch:"):
        run.load_weights(to)
        return
    kept = {name: value for name, value in run.session.trainer.state.snapshots.items() if not name.endswith(".keep")}
    with torch.no_grad():
        run.module.load_state_dict(kept, strict=False)
