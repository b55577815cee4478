"""Score every position of every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from onnxprune.ir.model import Model
from onnxprune.linear.moments import collect
from onnxprune.options.prune import GRADIENT
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.pruning import criteria
from onnxprune.pruning.data_criteria import CALIBRATED, calibrated

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.data.calibration import Feeds

Scores = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Score(Pass):
    """Establish the importance of each position."""

    name: ClassVar[str] = "score"
    criterion: str = "l2"
    """Which criterion; see `onnxprune.pruning.criteria`."""
    seed: int = 0
    """For criteria that draw."""

    def run(self, model: Model, facts: Facts) -> Model:
        facts.scores = self._scores(model, facts)
        for name, gone in facts.removal.gone.items() if facts.removal else ():
            if name in facts.scores:
                # Nothing is lost with them, whatever the criterion; some of those by gradients are negative.
                facts.scores[name][gone] = min(0.0, facts.scores[name].min())
        return model

    def _scores(self, model: Model, facts: Facts) -> dict[str, Scores]:
        coupling = need(facts.coupling, "coupling")
        if facts.calibration is None or not coupling.groups:
            return criteria.score(model, coupling, self.criterion, self.seed)
        if facts.statistics is None:
            facts.tell("gathering statistics of what the layers read")
            facts.statistics = collect(model, coupling, facts.calibration.fit, seed=self.seed)
        facts.tell(f"scoring by {self.criterion}")
        if self.criterion in GRADIENT:
            return _by_gradients(model, coupling, self.criterion, facts.calibration.fit, self.seed)
        if self.criterion in CALIBRATED:
            return calibrated(model, coupling, self.criterion, facts.statistics)
        return criteria.score(model, coupling, self.criterion, self.seed)


def _by_gradients(model: Model, coupling: Coupling, criterion: str, batches: Feeds, seed: int) -> dict[str, Scores]:
    """What groups without a trained weight get is what ``l2`` says."""
    from onnxprune.torch.importance import of_positions

    silent, found = criteria.score(model, coupling, "l2"), of_positions(model, coupling, criterion, batches, seed)
    return {name: scores / np.abs(scores).mean() if scores.any() else silent[name] for name, scores in found.items()}
