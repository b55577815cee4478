"""Score every position of every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import criteria
from onnxprune.model import Model
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.problems import CALIBRATED, calibrated
from onnxprune.statistics import collect


@dataclass(frozen=True)
class Score(Pass):
    """Establish the importance of each position."""

    name: ClassVar[str] = "score"
    criterion: str = "l2"
    """Which criterion; see `onnxprune.criteria`."""
    seed: int = 0
    """For criteria that draw."""

    def run(self, model: Model, facts: Facts) -> Model:
        coupling = need(facts.coupling, "coupling")
        if facts.calibration is None or not coupling.groups:
            facts.scores = criteria.score(model, coupling, self.criterion, self.seed)
            return model
        if facts.statistics is None:
            facts.tell("gathering statistics of what the layers read")
            facts.statistics = collect(model, coupling, facts.calibration.fit, seed=self.seed)
        facts.tell(f"scoring by {self.criterion}")
        if self.criterion in CALIBRATED:
            facts.scores = calibrated(model, coupling, self.criterion, facts.statistics)
        else:
            facts.scores = criteria.score(model, coupling, self.criterion, self.seed)
        return model
