"""Find the groups that have a basis in which they are cut best, and write a graph in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from onnxprune import bases
from onnxprune.model import Model
from onnxprune.passes.base import Facts, Pass, need

__all__ = ["Rotate", "turned"]


@dataclass(frozen=True)
class Rotate(Pass):
    """Establish the bases of groups that only linear maps touch. The graph stays as it is: plans speak of its positions."""

    name: ClassVar[str] = "rotate"

    def run(self, model: Model, facts: Facts) -> Model:
        calibration = need(facts.calibration, "calibration")
        facts.bases = bases.find(model, need(facts.coupling, "coupling"), calibration.fit)
        return model


def turned(model: Model, facts: Facts) -> tuple[Model, Facts]:
    """The same function with every group that a plan cuts in its basis, the directions that count most where positions remain;
    and facts of which it is the original.
    """
    plan = need(facts.plan, "plan")
    found = {name: basis for name, basis in (facts.bases or {}).items() if name in plan.keep}
    if not found:
        return model, replace(facts, original=model)
    model = model.copy()
    for name, basis in found.items():
        basis.turn(model, plan.keep[name])
    return model, replace(facts, original=model)
