"""Groups in the basis in which they are cut best (`onnxprune.linear.rotation`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.linear.layers import matrix_of
from onnxprune.passes.base import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.axes.factors import Positions
    from onnxprune.axes.plan import Plan
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.linear.rotation import Basis
    from onnxprune.pruning.data_criteria import Part, Problem

__all__ = ["Rotate", "rotated_problem"]


@dataclass(frozen=True)
class Rotate(Pass):
    """Write every group that a plan cuts in its basis; the function of the graph stays what it is."""

    def run(self, model: Model, bases: Mapping[str, Basis], plan: Plan) -> Model:
        """The rotated model, the directions that count most where positions remain; ``model`` itself where nothing is rotated.

        Args:
            model: the model.
            bases: by group id; groups without one stay as they are.
            plan: what remains of each group.
        """
        found = {name: basis for name, basis in bases.items() if name in plan.keep}
        if not found:
            return model
        model = model.copy()
        for name, basis in found.items():
            basis.rotate(model, plan.keep[name])
        return model


def rotated_problem(model: Model, basis: Basis, problem: Problem, order: Positions) -> tuple[Model, Problem]:
    """One group in its basis, and its readers there; positions that go first in ``order`` hold what counts least."""
    rotated = model.copy()
    basis.rotate(rotated, order[::-1])
    return rotated, replace(problem, parts=tuple(_rotated_part(rotated, basis, part, order[::-1]) for part in problem.parts))


def _rotated_part(rotated: Model, basis: Basis, part: Part, places: Positions) -> Part:
    weights = matrix_of(part.reader, rotated)[part.at]
    if not part.moments.full:
        return replace(part, weights=weights)  # what is known of the positions is the best guess
    map_ = _feature_map(rotated, basis, part, places)
    gram = part.moments.array
    return replace(part, moments=replace(part.moments, array=(map_.T @ gram @ map_).astype(gram.dtype)), weights=weights)


def _feature_map(rotated: Model, basis: Basis, part: Part, places: Positions) -> Array:
    """What the features of a reader are multiplied by from the right. [f, f]

    The weight tells them apart: written over with the companion, the position and the rest of each entry's coordinates.
    """
    reader, size = part.reader, basis.size
    found = np.eye(len(part.weights))
    like = rotated.weights[reader.weight].array().astype(np.float64)
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
