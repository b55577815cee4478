"""Decide how many positions each group keeps, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune import allocate
from onnxprune.cost import CostModel
from onnxprune.model import Model
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.plan import Plan
from onnxprune.recipe import Target, parse_align


@dataclass(frozen=True)
class Allocate(Pass):
    """Make the plan that meets a target at the least loss of scores."""

    name: ClassVar[str] = "allocate"
    target: str = "macs=0.5"
    """What remains: ``macs=0.5``, ``params=0.4``, ``size=0.25``, ``channels=0.5``."""
    scope: str = "global"
    """Which groups are ranked together: uniform, global, isomorphic."""
    align: str = "auto"
    """Widths are multiples of this: auto (16), 1 or N."""

    def run(self, model: Model, facts: Facts) -> Model:
        coupling = need(facts.coupling, "coupling")
        facts.costs = CostModel(model, coupling, need(facts.shapes, "shapes").batch)
        found = allocate.allocate(
            coupling,
            need(facts.scores, "scores"),
            facts.costs,
            Target.parse(self.target),
            scope=self.scope,
            align=parse_align(self.align),
            gone=facts.removal.gone if facts.removal else {},
        )
        facts.plan = Plan(found.keep)
        return model
