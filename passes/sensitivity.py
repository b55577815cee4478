"""Measure what each group costs: the divergence of the model's outputs when the group alone is cut, and repaired.

A few widths of each group are measured, on samples that the repair did not see; between them the loss of the group's readers,
which is known for every width, gives the shape of the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import leaves
from onnxprune.axes.plan import Plan
from onnxprune.ir.model import Model, pinned_sizes
from onnxprune.linear.layers import Reader, install
from onnxprune.linear.obs import AdditiveLoss, Removals
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.prune_channels import PruneChannels
from onnxprune.passes.rotate import rotated_problem
from onnxprune.pruning.data_criteria import Problem
from onnxprune.pruning.knapsack import Curve
from onnxprune.runtime.stages import StagedRun
from onnxprune.verify.suffix import SuffixDivergence

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.factors import Factor
    from onnxprune.data.calibration import Calibration
    from onnxprune.ir.weights import Array
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.observe import Observed
    from onnxprune.pruning.criteria import Scores

__all__ = ["Sensitivity"]

WIDTHS = (0.8, 0.6, 0.4, 0.2)
"""Shares of a group's positions at which the divergence is measured,"""
FEW_WIDTHS = (0.6, 0.3)
"""and where that would leave few samples to measure on."""
_ENOUGH = 16
"""Samples that are not few."""
_PASSES = 2
"""Forward passes over all calibration samples that measuring may take, about,"""
_WORK = 1e11
"""or multiply-accumulates, where that is more."""


@dataclass(frozen=True)
class Sensitivity(Pass):
    """Measure the error curve of each group."""

    repair: bool = True
    """Whether the readers are repaired before the divergence is measured."""

    def run(
        self,
        analysis: Analysis,
        scores: Mapping[str, Scores],
        observed: Observed,
        known: Mapping[str, Curve] = MappingProxyType({}),
        tell: Progress = silent,
    ) -> dict[str, Curve]:
        """What each group loses, by group id.

        Args:
            analysis: a model in float32, and its groups.
            scores: the importance of each position of each group.
            observed: what calibration samples show.
            known: curves that need not be measured again.
            tell: is told which group is measured.
        """
        missing = [group for group in analysis.coupling.groups if group.id not in known]
        starts = _starts(analysis.model, analysis.coupling)
        levels, held = _affordable(analysis, observed.calibration, len(missing)) if missing else (WIDTHS, ())
        found = dict(known)
        with StagedRun(analysis.model, held) as stages:
            meter = SuffixDivergence(analysis.model, held, stages)
            for count, group in enumerate(sorted(missing, key=lambda group: starts[group.factor])):
                tell(f"measuring what each group costs ({count + 1} of {len(missing)})")
                measure = partial(meter.measure, start=starts[group.factor])
                found[group.id] = self._curve(analysis, group, scores[group.id], observed, levels, measure)
        return found

    def _curve(
        self,
        analysis: Analysis,
        group: CouplingGroup,
        scores: Scores,
        observed: Observed,
        shares: Sequence[float],
        measure: Callable[[Model], float],
    ) -> Curve:
        order = np.argsort(scores, kind="stable")
        problem = Problem.of(analysis.model, analysis.coupling, group, observed.statistics)
        basis = observed.bases.get(group.id)
        if basis and self.repair:
            rotated, problem = rotated_problem(analysis.model, basis, problem, order)
            analysis = replace(analysis, model=rotated)
            problem = replace(problem, meetings=tuple(np.diff(basis.lost)[np.argsort(order)] for _ in problem.meetings))
        losses = problem.losses() or [AdditiveLoss(np.square(scores) / max(float(np.square(scores).sum()), 1e-30))]
        removals = [loss.along(order) for loss in losses]
        measured = {}
        for width in sorted({max(1, min(group.size - 1, round(share * group.size))) for share in shares}, reverse=True):
            gone = group.size - width
            repaired = _repaired(analysis, problem, removals, gone) if self.repair else analysis
            cut = PruneChannels().run(repaired, Plan({group.id: np.sort(order[gone:])}))
            measured[width] = measure(cut)
        return Curve(order, _interpolated(np.sum([one.lost for one in removals], 0), measured), measured)


def _affordable(
    analysis: Analysis, calibration: Calibration, groups: int
) -> tuple[Sequence[float], Sequence[Mapping[str, Array]]]:
    """The widths at which so many groups are measured, and the batches of held samples; at least one batch.

    A model that is cut in a group runs from there on: over all groups that is about half of it.
    """
    macs = max(analysis.costs.cost({}).macs, 1)
    runs = max(_PASSES * len(calibration.every) * calibration.size, _WORK / macs) / max(groups / 2, 1)  # of a sample, by group
    shares = WIDTHS if runs >= _ENOUGH * len(WIDTHS) else FEW_WIDTHS
    return shares, list(islice(calibration.held, max(1, int(runs / len(shares) / calibration.size))))


def _starts(model: Model, coupling: Coupling) -> dict[Factor, int]:
    """For each factor the first node that cutting it changes: one that it occurs in, or one that spells its size for that."""
    pinned = pinned_sizes(model)
    spelled = {name: at for at, node in enumerate(model.graph.node) for name in node.output if name in pinned}
    found: dict[Factor, int] = {}
    for node in coupling.nodes:
        sources = [name for position in node.rule.sizes_at for name in node.view.inputs[position : position + 1]]
        first = min([node.index, *(spelled[name] for name in sources if name in spelled)])
        for leaf in {leaf for factor in node.letters.values() for leaf in leaves(factor)}:
            found[leaf] = min(found.get(leaf, first), first)
    return found


def _repaired(analysis: Analysis, problem: Problem, removals: Sequence[Removals], gone: int) -> Analysis:
    """The model, at its full size, with readers as they are when so many positions have gone; biases that they got have axes."""
    matrices: dict[str, list[Array]] = {}
    readers: dict[str, Reader] = {}
    for piece, one in zip(problem.parts, removals, strict=False):  # those of meetings follow
        if one.weights is not None:
            matrices.setdefault(piece.reader.weight, []).append(one.weights(gone))
            readers[piece.reader.weight] = piece.reader
    model, axes = analysis.model.copy(), dict(analysis.coupling.axes)
    for name, reader in readers.items():
        install(model, reader, np.stack(matrices[name]))
        if reader.affine and not reader.bias:
            axes[model.graph.node[reader.node.index].input[2]] = axes[reader.output][1:2]
    return replace(analysis, model=model, coupling=replace(analysis.coupling, axes=axes))


def _interpolated(lost: Scores, measured: Mapping[int, float]) -> Scores:
    """The divergence for every number of removed positions, from the readers' loss and some measured widths. [size + 1]"""
    size = len(lost) - 1
    loss = np.maximum.accumulate(lost) + 1e-12 * np.arange(size + 1)  # strictly ascending
    at = sorted(size - width for width in measured)
    known = np.maximum.accumulate([0.0, *(measured[size - count] for count in at)])
    where = loss[[0, *at]]
    found: Scores = np.interp(loss, where, known)
    beyond = loss > where[-1]
    slope = (known[-1] - known[-2]) / max(where[-1] - where[-2], 1e-30)
    found[beyond] = known[-1] + (loss[beyond] - where[-1]) * slope
    return found + 1e-9 * np.arange(size + 1)
