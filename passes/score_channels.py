"""Score every position of every group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import SAMPLES, TORCH
from onnxprune.passes.base import Pass
from onnxprune.pruning import criteria
from onnxprune.pruning.data_criteria import calibrated

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.observe import Observed
    from onnxprune.pruning.criteria import Scores

__all__ = ["ScoreChannels"]


@dataclass(frozen=True)
class ScoreChannels(Pass):
    """Find the importance of each position."""

    criterion: str = "l2"
    """Which criterion; see `onnxprune.pruning.criteria`."""
    seed: int = 0
    """For criteria that draw."""

    def run(
        self, analysis: Analysis, observed: Observed | None = None, gone: Mapping[str, Positions] = MappingProxyType({})
    ) -> dict[str, Scores]:
        """The scores of the positions of each group, by group id; higher is more important.

        Args:
            analysis: a model in float32, and its groups.
            observed: what criteria that need data read.
            gone: positions that carry no weight, by group id.

        Raises:
            OptionError: PyTorch is not installed, or there are no labels and the criterion needs them.
        """
        found = self._scores(analysis, observed)
        for name in gone.keys() & found.keys():
            # Nothing is lost with them, whatever the criterion; some of those by gradients are negative.
            found[name][gone[name]] = min(0.0, found[name].min())
        return found

    def _scores(self, analysis: Analysis, observed: Observed | None) -> dict[str, Scores]:
        model, coupling = analysis.model, analysis.coupling
        needs = CRITERIA[self.criterion].needs
        if observed is not None and TORCH in needs:
            return _by_gradients(analysis, self.criterion, observed.calibration.fit, self.seed)
        if observed is not None and SAMPLES in needs:
            return calibrated(model, coupling, self.criterion, observed.statistics)
        return criteria.score_groups(model, coupling, self.criterion, self.seed)


def _by_gradients(analysis: Analysis, criterion: str, batches: CalibrationFeeds, seed: int) -> dict[str, Scores]:
    """Groups without a trained weight are scored by ``l2``."""
    from onnxprune.torch.importance import channel_importance

    model, coupling = analysis.model, analysis.coupling
    silent, found = criteria.score_groups(model, coupling, "l2"), channel_importance(model, coupling, criterion, batches, seed)
    return {name: scores / np.abs(scores).mean() if scores.any() else silent[name] for name, scores in found.items()}
