"""Find the groups that have a basis in which they are cut best, and write a graph in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxprune.ir.model import Model
from onnxprune.linear import rotation
from onnxprune.linear.layers import matrix_of
from onnxprune.linear.rotation import Basis
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.pruning.data_criteria import Part, Problem

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.ir.weights import Array

__all__ = ["Rotate", "turned", "turned_problem"]


@dataclass(frozen=True)
class Rotate(Pass):
    """Establish the bases of groups that only linear maps touch. The graph stays as it is: plans speak of its positions."""

    name: ClassVar[str] = "rotate"

    def run(self, model: Model, facts: Facts) -> Model:
        calibration = need(facts.calibration, "calibration")
        facts.bases = rotation.find(model, need(facts.coupling, "coupling"), calibration.fit)
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


def turned_problem(model: Model, basis: Basis, problem: Problem, order: Positions) -> tuple[Model, Problem]:
    """One group in its basis, and its readers there; positions that go first in ``order`` hold what counts least."""
    turned = model.copy()
    basis.turn(turned, order[::-1])
    return turned, replace(problem, parts=tuple(_turned_part(turned, basis, part, order[::-1]) for part in problem.parts))


def _turned_part(turned: Model, basis: Basis, part: Part, places: Positions) -> Part:
    weights = matrix_of(part.reader, turned)[part.at]
    if len(part.gram) != len(part.weights):
        return replace(part, weights=weights)  # diagonals alone: those of the positions are the best guess
    map_ = _feature_map(turned, basis, part, places)
    return replace(part, gram=(map_.T @ part.gram @ map_).astype(part.gram.dtype), weights=weights)


def _feature_map(turned: Model, basis: Basis, part: Part, places: Positions) -> Array:
    """What the features of a reader are multiplied by from the right. [f, f]

    The weight tells them apart: written over with the companion, the position and the rest of each entry's coordinates.
    """
    reader, size = part.reader, basis.size
    found = np.eye(len(part.weights))
    like = turned.weights[reader.weight].array().astype(np.float64)
    for (name, _), (seen, second) in basis.sides.items():
        if name != reader.weight:
            continue
        forth = (basis.forth if second else basis.back)[:, :, np.argsort(places)]
        blocks = seen.blocks(like)
        entry = np.arange(blocks.size).reshape(blocks.shape)
        codes = reader.matrix(seen.put(np.full_like(like, -1.0), entry))[part.at, :, 0] / reader.scale[0]
        features = np.flatnonzero(codes >= 0)
        companion, digit, rest = np.unravel_index(codes[features].round().astype(int), blocks.shape)
        rows = features[np.lexsort((digit, rest, companion))].reshape(-1, size)
        which = np.sort(companion).reshape(-1, size)[:, 0]
        found[rows[:, :, None], rows[:, None, :]] = forth[which]
    return found
