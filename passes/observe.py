"""Run a model on calibration samples once, and keep what choices are made by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.linear.gather import gather
from onnxprune.linear.moments import MomentSums, Statistics
from onnxprune.linear.rotation import BasisSums
from onnxprune.passes.base import Pass, Progress, silent

if TYPE_CHECKING:
    from onnxprune.data.calibration import Calibration
    from onnxprune.linear.rotation import Basis
    from onnxprune.passes.analysis import Analysis
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["Observe", "Observed"]


@dataclass(frozen=True, slots=True)
class Observed:
    """What calibration samples show of a model.

    Attributes:
        calibration: the samples.
        statistics: moments of what the layers read.
        bases: of groups that only linear maps touch, by group id.
    """

    calibration: Calibration
    statistics: Statistics
    bases: Mapping[str, Basis]


@dataclass(frozen=True)
class Observe(Pass):
    """Gather moments of what layers read, and find the bases of groups that have one, on samples that choices are fitted on."""

    bases: bool = True
    """Whether to look for bases; only a repaired model is cut in them."""
    seed: int = 0
    """Of the rows that are drawn where there are many."""

    def run(self, analysis: Analysis, calibration: Calibration, engine: Pool | None = None, tell: Progress = silent) -> Observed:
        """What the samples show.

        Args:
            analysis: a model in float32.
            calibration: its samples.
            engine: processes that share in the work; what the samples show is the same.
            tell: is told how far it is.
        """
        model, coupling = analysis.model, analysis.coupling
        moments = MomentSums(model, coupling, len(calibration.fit), seed=self.seed)
        turns = BasisSums(model, coupling) if self.bases else None
        gather(model, calibration.fit, moments, *([turns] if turns else []), engine=engine, tell=tell)
        return Observed(calibration, moments.statistics(), turns.bases() if turns else {})
