"""Measure what each group costs: the divergence of the model's outputs when the group alone is cut, and repaired.

A few widths of each group are measured, on samples that the repair did not see; between them the loss of the group's readers,
which is known for every width, gives the shape of the curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from onnxprune import runtime
from onnxprune.axes import leaves
from onnxprune.divergence import divergence
from onnxprune.knapsack import Curve
from onnxprune.model import Model
from onnxprune.obs import Additive, Loss, Quadratic
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.passes.prune_channels import PruneChannels
from onnxprune.passes.rotate import turned_problem
from onnxprune.plan import Plan
from onnxprune.problems import Problem
from onnxprune.readers import Reader, install
from onnxprune.staged import Staged, part

if TYPE_CHECKING:
    from onnxprune.axes import Factor
    from onnxprune.coupling import Coupling, CouplingGroup
    from onnxprune.weights import Array

__all__ = ["Sensitivity"]

Scores = npt.NDArray[np.float64]
LEVELS = (0.8, 0.6, 0.4, 0.2)
"""Shares of a group's positions at which the divergence is measured."""
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
        with Staged(model, need(facts.calibration, "calibration").held) as stages:
            meter = _Meter(model, facts, stages)
            for count, group in enumerate(sorted(missing, key=meter.start)):
                facts.tell(f"measuring what each group costs ({count + 1} of {len(missing)})")
                known[group.id] = self._curve(model, facts, group, scores[group.id], meter)
        facts.curves = known
        return model

    def _curve(self, model: Model, facts: Facts, group: CouplingGroup, scores: Scores, meter: _Meter) -> Curve:
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
                measured[stop] = meter.measure(cut, meter.start(group))
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


class _Meter:
    """Measures models that differ from the original from some node on; what lies before is computed once."""

    def __init__(self, model: Model, facts: Facts, stages: Staged) -> None:
        coupling, held = need(facts.coupling, "coupling"), need(facts.calibration, "calibration").held
        self._stages = stages
        self._outputs = [output.name for output in model.graph.output]
        session = runtime.Session(model, self._outputs, threads=0)
        self._reference = [session.run(feed) for feed in held]
        self._first: dict[Factor, int] = {}
        for node in coupling.nodes:
            for leaf in {leaf for factor in node.letters.values() for leaf in leaves(factor)}:
                self._first.setdefault(leaf, node.index)

    def start(self, group: CouplingGroup) -> int:
        """The first node that cutting the group changes."""
        return self._first[group.factor]

    def measure(self, cut: Model, start: int) -> float:
        """The divergence of a model that equals the original before node ``start``; ``start`` never falls from call to call."""
        self._stages.advance(start)
        nodes = cut.graph.node[start:]
        made = {name for node in nodes for name in node.output}.intersection(self._outputs)
        names = [name for name in self._outputs if name in made]
        tail = part(cut, nodes, names, self._stages.info)
        session = runtime.Session(tail, threads=0)
        reads = [value.name for value in tail.graph.input]
        found = []
        for batch, reference in enumerate(self._reference):
            got = dict(zip(names, session.run({name: self._stages.value(name, batch) for name in reads}), strict=True))
            outputs = [got.get(name, before) for name, before in zip(self._outputs, reference, strict=True)]
            found.append(divergence(outputs, reference))
        return float(np.mean(found))


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
