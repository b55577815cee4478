"""The model that a search found, distilled: taken where it helps on samples that only choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from onnxprune.driver.levers.base import Made, Step
from onnxprune.errors import OnnxPruneError

if TYPE_CHECKING:
    from onnxprune.driver.progress import Stages
    from onnxprune.driver.trials import Trial, Trials, Wish
    from onnxprune.ir.model import Model
    from onnxprune.passes.base import Progress

__all__ = ["DISTILLATION", "Distilled", "Distiller", "distilled"]

DISTILLATION = "distillation"
"""What reports call it."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """A model after distillation.

    Attributes:
        model: the same with other weights.
        choice: what was done, in words.
        before: how far outputs were from the teacher's on samples that neither train nor judge, as a mean divergence.
        after: how far they are.
    """

    model: Model
    choice: str
    before: float
    after: float


class Distiller(Protocol):
    """Trains a model to output what another does; it lies in a room that this one does not know."""

    def check(self, model: Model) -> None:
        """Say what is wrong before a search begins.

        Raises:
            ModelError: the model cannot be trained.
            OptionError: samples cannot be read, are too few, or do not fit.
        """

    def __call__(self, student: Model, teacher: Model, tell: Progress) -> Distilled:
        """The student after training.

        Raises:
            ModelError: it cannot be trained.
            RequirementError: training diverged.
        """


def distilled(trials: Trials, wish: Wish, found: Trial, made: Made, distil: Distiller, stages: Stages) -> tuple[Trial, Made, str]:
    """The best model after distillation where that helps, else as it was; and a note of what came of it.

    Samples that were held out of the training choose. Those that judge are asked once, whether what is wished for still holds.

    Args:
        trials: what was tried; the distilled model becomes one of them.
        wish: what is wanted.
        found: the best model, as it was timed.
        made: the same, built.
        distil: trains it.
        stages: announces and times what is done.
    """
    if any(step.kernels for step in made.steps):
        return found, made, "distillation: layers with sparse kernels cannot be trained: leave --kernels out"
    with stages(DISTILLATION, "distilling the best model"):
        try:
            one = distil(made.model, trials.original, stages.tell)
        except OnnxPruneError as error:
            return found, made, f"distillation: {error}"
    told = (
        f"distillation moved outputs from {one.before:.4f} to {one.after:.4f} off the original's, on samples held out of --data"
    )
    if not one.after < one.before:
        return found, made, f"{told}: not taken"
    after = made.then(Step(DISTILLATION, one.choice, {"distilled": one.model}))
    trial = trials.add(after, found.latency)
    if not wish.holds(trial):
        return found, made, f"{told}, but the samples that judge do not allow it: not taken"
    return trial, after, told
