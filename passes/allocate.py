"""Decide how many positions each group keeps, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.axes.plan import Plan
from onnxprune.ir.model import Model
from onnxprune.options.prune import Target, parse_align
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.pruning import allocation
from onnxprune.pruning.cost import CostModel


@dataclass(frozen=True)
class Allocate(Pass):
    """Make the plan that meets a target at the least loss of scores."""

    name: ClassVar[str] = "allocate"
    target: str = "macs=0.5"
    """What remains: ``macs=0.5``, ``params=0.4``, ``size=0.25``, ``channels=0.5``."""
    scope: str = "global"
    """Which groups are ranked together: uniform, global, isomorphic."""
    align: str = "auto"
    """Widths are multiples of this: auto (16; 4 where latency is the target), 1 or N."""

    exponent: float = 1.0
    """By scope sensitivity, of predicted errors before they are added; above 1, many small losses are better than a large one."""

    def run(self, model: Model, facts: Facts) -> Model:
        coupling, target = need(facts.coupling, "coupling"), Target.parse(self.target)
        facts.costs = CostModel(model, coupling, need(facts.shapes, "shapes").batch)
        prices = need(facts.prices, "latency") if target.metric == "latency" else facts.costs.of(target.metric)
        align, gone = parse_align(self.align, target.metric), facts.removal.gone if facts.removal else {}
        if self.scope == "sensitivity" and target.metric != "channels":
            curves = need(facts.curves, "error curves")
            found = allocation.by_curves(coupling, curves, prices, target, align=align, exponent=self.exponent, gone=gone)
        else:
            scope = "uniform" if self.scope == "sensitivity" else self.scope
            scores = need(facts.scores, "scores")
            found = allocation.allocate(coupling, scores, prices, target, scope=scope, align=align, gone=gone)
        facts.plan = Plan(found.keep)
        return model
