"""What is known of a task before it is done: what its plan costs, and how far outputs move after a quick repair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data.samples import optional_samples, sized
from onnxprune.driver.costs import price
from onnxprune.driver.judgement import Jury
from onnxprune.driver.progress import Stages
from onnxprune.driver.prune import compiling
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.sweep.work import read_order, stages_of

if TYPE_CHECKING:
    from onnxprune.sweep.tasks import Task

__all__ = ["can_preview", "preview"]


def can_preview(task: Task) -> bool:
    """Tell whether anything can be known of a task before: it prunes on samples, to a target that is counted."""
    return len(task.stages) > 1 and not task.options["target"].startswith("latency")


def preview(order: Mapping[str, Any]) -> dict[str, float | None]:
    """What a task costs by its plan, as fractions of the original by metric, and its ``drift``; it runs in a worker.

    The drift is infinite where the target cannot be reached.

    Raises:
        OnnxPruneError: it fails otherwise.
    """
    with ExitStack() as stack:
        model, options = read_order(order, stack)
        recipe: Recipe = options[Recipe]
        original = Model.of(Path(model), recipe.shape)
        opened = optional_samples(recipe.calib, original.inputs, recipe.preprocess)
        jury = Jury.of(recipe.gates, sized(original, opened), opened, recipe.preprocess).sized()
        compiler, _ = compiling(recipe, jury.original, jury.learnt, Stages(), stages_of(order))
        try:
            analysis, plan = compiler.planned(recipe.target)
            return {**price(analysis, plan)[2], "drift": compiler.rehearsed(recipe.target)}
        except TargetError:
            return {"drift": math.inf}
