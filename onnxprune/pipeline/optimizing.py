"""The command `optimize`, with what distils its result where there is data to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.driver import optimize as driver
from onnxprune.options.optimize import OptimizeRecipe

if TYPE_CHECKING:
    from onnxprune.data.samples import SamplesLike
    from onnxprune.driver.optimize import Clock, OptimizeResult
    from onnxprune.ir.model import ModelSource
    from onnxprune.passes.base import Progress

__all__ = ["optimize"]


def optimize(
    source: ModelSource,
    recipe: OptimizeRecipe | str | None = None,
    *,
    samples: SamplesLike | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> OptimizeResult:
    """Make a model as fast as it can be within a drop of its score, or the most accurate one that is fast or small enough.

    Channels are cut and repaired, layers compute in int8 or, with ``kernels``, get zeros where that is faster, and what can go
    without loss does. Which of that is mixed, and how much of it, is searched for: every mixture that is tried is built, timed
    beside the original, and judged on samples that it did not learn from. Each lever alone is tried, too, while there is time.
    With ``data`` the best model is distilled at the end, which is taken where it helps.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: the drop or the target, the samples, how long to search; a text is the target.
        samples: calibration data, in any form of `open_samples`; the recipe's if there is none here.
        progress: told what begins.
        clock: how models are timed, if not by ONNX Runtime here.

    Raises:
        ModelError: the source is not a model that can be read, computes in int8 already, or has no floating-point weights.
        OptionError: there are no samples, too few, or they do not fit; there is data, but no PyTorch; or sparse kernels are
            asked for and cannot be built.
        TargetError: nothing that was tried is faster within the drop, or meets the target; says what came nearest.
        VerificationError: an output is not tested that must be.
    """
    recipe, distil = OptimizeRecipe.of(recipe), None
    if recipe.data:
        from onnxprune.training.distillation import Distillation  # takes a second to import, and needs PyTorch

        distil = Distillation(recipe.data, recipe.preprocess, recipe.seed)
    return driver.optimize(source, recipe, samples=samples, progress=progress, clock=clock, distil=distil)
