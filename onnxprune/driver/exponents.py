"""The exponent of predicted errors, tried out.

Errors of groups or layers are predicted one by one, and added to choose between plans. What several lose together is not the sum
of what each loses alone, and how far it is from it differs from model to model. So errors are raised to an exponent before they
are added, and which one is tried on samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.session import Session
from onnxprune.verify.divergence import divergence

if TYPE_CHECKING:
    from onnxprune.data.calibration import Batches, Calibration, CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.base import Progress

__all__ = ["best_exponent", "drifted", "small_enough"]

_WORK = 5e11
"""Multiply-accumulates of the calibration set up to which several models are fitted and compared."""


def small_enough(analysis: Analysis, calibration: Calibration) -> bool:
    """Whether a model is small enough to try exponents on so many samples."""
    return analysis.costs.cost({}).macs * len(calibration.every) * calibration.size <= _WORK


def best_exponent(
    exponents: Sequence[float],
    build: Callable[[float], Model],
    original: Model,
    held: CalibrationFeeds,
    tell: Progress,
    what: str,
) -> float:
    """The exponent whose model is nearest to the original; the first of equals.

    Args:
        exponents: those that are tried, in order.
        build: the model that an exponent comes to.
        original: what it should compute, in its floating-point type.
        held: samples that no model was fitted on.
        tell: is told which one is tried.
        what: is shared out, for that.
    """
    errors: dict[float, float] = {}
    for number, exponent in enumerate(exponents, 1):
        tell(f"trying ways to share the {what} out ({number} of {len(exponents)})")
        errors[exponent] = drifted(build(exponent), original, held)
    return min(errors, key=lambda exponent: errors[exponent])


def drifted(changed: Model, original: Model, feeds: Batches) -> float:
    """The mean divergence of a model's outputs from another's."""
    names = [output.name for output in original.graph.output]
    small, large = (Session(model, names) for model in (changed, original))

    def gap(feed: Mapping[str, Any]) -> float:
        return divergence(small.run(feed), large.run(feed))

    return float(np.mean(list(map_ordered(gap, feeds, at_once()))))
