"""Measure what each group costs: the divergence of the model's outputs when the group alone is cut, and repaired.

A few widths of each group are measured, on samples that the repair did not see; between them the loss of the group's readers,
which is known for every width, gives the shape of the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import leaves
from onnxprune.axes.plan import Plan
from onnxprune.ir.model import Model
from onnxprune.linear.layers import Reader, install
from onnxprune.linear.obs import Additive, Loss, Quadratic
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.passes.prune_channels import PruneChannels
from onnxprune.passes.rotate import turned_problem
from onnxprune.pruning.cost import CostModel
from onnxprune.pruning.data_criteria import Problem
from onnxprune.pruning.knapsack import Curve
from onnxprune.runtime.stages import Staged
from onnxprune.verify.suffix import Meter

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.factors import Factor
    from onnxprune.ir.weights import Array

__all__ = ["Sensitivity"]

Scores = npt.NDArray[np.float64]
LEVELS = (0.8, 0.6, 0.4, 0.2)
"""Shares of a group's positions at which the divergence is measured."""
_WORK = 1e13
"""Multiply-accumulates, about, up to which more samples measure what groups cost."""
_POINTS = 20
"""Widths at which the loss of a group's readers is worked out."""


@dataclass(frozen=True)
class Sensitivity(Pass):
    """Establish the error curve of each group."""

    name: ClassVar[str] = "sensitivity"
    repair: bool = True
    """Whether the readers are repaired before the divergence is measured."""

    def run(self, model: Model, facts: Facts) -> Model:
        coupling, scores = need(facts.coupling, "coupling"), need(facts.scores, "scores")
        known = dict(facts.curves or {})
        missing = [group for group in coupling.groups if group.id not in known]
        starts = _starts(coupling)
        held = _affordable(model, facts, len(missing) * len(LEVELS)) if missing else ()
        with Staged(model, held) as stages:
            meter = Meter(model, held, stages)
            for count, group in enumerate(sorted(missing, key=lambda group: starts[group.factor])):
                facts.tell(f"measuring what each group costs ({count + 1} of {len(missing)})")
                measure = partial(meter.measure, start=starts[group.factor])
                known[group.id] = self._curve(model, facts, group, scores[group.id], measure)
        facts.curves = known
        return model

    def _curve(
        self, model: Model, facts: Facts, group: CouplingGroup, scores: Scores, measure: Callable[[Model], float]
    ) -> Curve:
        coupling = need(facts.coupling, "coupling")
        order = np.argsort(scores, kind="stable")
        problem = Problem.of(model, coupling, group, need(facts.statistics, "statistics"))
        basis = (facts.bases or {}).get(group.id)
        if basis and self.repair:
            model, problem = turned_problem(model, basis, problem, order)
            problem = replace(problem, meetings=tuple(np.diff(basis.lost)[np.argsort(order)] for _ in problem.meetings))
        losses = problem.losses() or [Additive(np.square(scores) / max(float(np.square(scores).sum()), 1e-30))]
        levels = {max(1, min(group.size - 1, round(level * group.size))) for level in LEVELS}
        stops = sorted(levels | set(np.linspace(group.size, 1, _POINTS).round().astype(int).tolist()), reverse=True)
        measured, lost, at = {}, [0.0], group.size
        for stop in stops:
            if stop < at:
                lost.append(lost[-1] + sum(loss.remove(order[group.size - at : group.size - stop]) for loss in losses))
                at = stop
            if stop in levels:
                cut = self._cut(model, facts, group, order[group.size - stop :], problem, losses)
                measured[stop] = measure(cut)
        removed = [0, *(group.size - stop for stop in stops if stop < group.size)]
        return Curve(order, _interpolated(group.size, removed, lost, measured), measured)

    def _cut(
        self, model: Model, facts: Facts, group: CouplingGroup, keep: Array, problem: Problem, losses: Sequence[Loss]
    ) -> Model:
        """The model with one group cut, and its readers as the losses have them by now."""
        coupling, plan = need(facts.coupling, "coupling"), Plan({group.id: np.sort(keep)})
        if self.repair:
            model, coupling = _repaired(model, coupling, problem, losses)
        return PruneChannels().run(model, Facts(shapes=facts.shapes, coupling=coupling, plan=plan))


def _affordable(model: Model, facts: Facts, times: int) -> Sequence[Mapping[str, Array]]:
    """As many batches of the held samples as may be run that often within the bound on work, at least one."""
    calibration = need(facts.calibration, "calibration")
    costs = CostModel(model, need(facts.coupling, "coupling"), need(facts.shapes, "shapes").batch)
    work = costs.cost({}).macs * calibration.size * times
    return list(islice(calibration.held, max(1, int(_WORK / max(work, 1)))))


def _starts(coupling: Coupling) -> dict[Factor, int]:
    """For each factor the first node that it occurs in: the first that cutting it changes."""
    found: dict[Factor, int] = {}
    for node in coupling.nodes:
        for leaf in {leaf for factor in node.letters.values() for leaf in leaves(factor)}:
            found.setdefault(leaf, node.index)
    return found


def _repaired(model: Model, coupling: Coupling, problem: Problem, losses: Sequence[Loss]) -> tuple[Model, Coupling]:
    """The model, at its full size, with readers as their losses have them; and the axes of biases that they got."""
    matrices: dict[str, list[Array]] = {}
    readers: dict[str, Reader] = {}
    for piece, loss in zip(problem.parts, losses, strict=False):  # the losses of meetings follow
        if isinstance(loss, Quadratic):
            matrices.setdefault(piece.reader.weight, []).append(loss.weights)
            readers[piece.reader.weight] = piece.reader
    model, axes = model.copy(), dict(coupling.axes)
    for name, reader in readers.items():
        install(model, reader, np.stack(matrices[name]))
        if reader.affine and not reader.bias:
            axes[model.graph.node[reader.node.index].input[2]] = axes[reader.output][1:2]
    return model, replace(coupling, axes=axes)


def _interpolated(size: int, removed: Sequence[int], lost: Sequence[float], measured: Mapping[int, float]) -> Scores:
    """The divergence for every number of removed positions, from the readers' loss and some measured widths. [size + 1]"""
    loss = np.interp(np.arange(size + 1), removed, np.maximum.accumulate(lost))
    loss += 1e-12 * np.arange(size + 1)  # strictly ascending
    at = sorted(size - width for width in measured)
    known = np.maximum.accumulate([0.0, *(measured[size - count] for count in at)])
    where = loss[[0, *at]]
    found = np.interp(loss, where, known)
    beyond = loss > where[-1]
    slope = (known[-1] - known[-2]) / max(where[-1] - where[-2], 1e-30)
    found[beyond] = known[-1] + (loss[beyond] - where[-1]) * slope
    return found + 1e-9 * np.arange(size + 1)
