"""Score every position of every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import criteria
from onnxprune.model import Model
from onnxprune.passes.base import Facts, Pass, need


@dataclass(frozen=True)
class Score(Pass):
    """Establish the importance of each position."""

    name: ClassVar[str] = "score"
    criterion: str = "l2"
    """Which criterion; see `onnxprune.criteria`."""
    seed: int = 0
    """For criteria that draw."""

    def run(self, model: Model, facts: Facts) -> Model:
        scores = criteria.score(model, need(facts.coupling, "coupling"), self.criterion, self.seed)
        for name, gone in facts.removal.gone.items() if facts.removal else ():
            if name in scores:
                scores[name][gone] = 0  # nothing is lost with them, whatever the criterion
        facts.scores = scores
        return model
