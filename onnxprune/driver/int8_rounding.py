"""Weights of an int8 model rounded anew: towards what the original outputs, on samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.data.samples import held_out
from onnxprune.errors import OnnxPruneError
from onnxprune.passes import Couple, Normalize, RoundWeights
from onnxprune.runtime.session import first_line

if TYPE_CHECKING:
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.base import Progress

__all__ = ["BOUNDS", "Rounded", "Rounder"]

BOUNDS = {False: 127, True: 64}
"""The largest integer of a weight: of all 8 bits, and where the range is reduced."""
_SAMPLES = 256
"""Samples that weights are rounded on, about; evenly spread over all. Each gives many rows."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Attributes:
    model: the int8 model.
    layers: those whose weights were rounded anew, with the errors of the nearest integers and of theirs.
    notes: why there are none.
    """

    model: Model
    layers: tuple[Repaired, ...] = ()
    notes: tuple[str, ...] = ()


class Rounder:
    """Rounds the weights of int8 forms of one model; what it needs to know of the model is found out once."""

    def __init__(self, prepared: Model, samples: Samples, *, reduced: bool) -> None:
        """Nothing runs yet.

        Args:
            prepared: the model in floating point that is quantised.
            samples: what is fitted on; a part of them, where they are many.
            reduced: whether weights take 7 bits.
        """
        self._prepared, self._samples, self._pass = prepared, samples, RoundWeights(BOUNDS[reduced])

    def run(self, quantized: Model, tell: Progress) -> Rounded:
        """An int8 form with its weights rounded anew; as it is, with the reason, where the model cannot be analysed."""
        try:
            analysis, feeds = self._fitted_on
            fitted = self._pass.run(quantized, analysis, feeds, tell)
        except OnnxPruneError as error:
            return Rounded(quantized, notes=(f"weights were rounded to the nearest integers: {first_line(error)}",))
        return Rounded(fitted.model, fitted.repairs)

    @cached_property
    def _fitted_on(self) -> tuple[Analysis, CalibrationFeeds]:
        """The model, analysed, and batches of samples."""
        analysis = Couple(allow_inexact=True).run(Normalize().run(self._prepared)).float32
        every = (self._samples.count or 0) // _SAMPLES
        some = held_out(self._samples, self._prepared.inputs, every)[1] if every > 1 else self._samples
        return analysis, analysis.calibration(some).every
