"""Take branches out of one model: which ones is found out once, then any number of them goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.axes.plan import Plan
from onnxprune.data.samples import held_out
from onnxprune.driver.proof import held, judged
from onnxprune.ir.precision import differing_weights, with_fitted_weights
from onnxprune.linear.layers import linear_readers
from onnxprune.passes import BranchLosses, Bypass, Couple, Normalize, RemoveBranches, Repair, Restore
from onnxprune.passes.constants import tie
from onnxprune.pruning.branches import Branch, find_branches
from onnxprune.verify.law import compare, unchanged

if TYPE_CHECKING:
    from onnxprune.data.calibration import Calibration
    from onnxprune.data.samples import Samples
    from onnxprune.driver.progress import Stages
    from onnxprune.ir.model import Model
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.branch_losses import Together
    from onnxprune.verify.verdicts import Check

__all__ = ["Shortened", "Shortener", "in_order"]

_LEAST, _FEW, _MOST = 32, 64, 340
"""Samples that what branches cost is measured on, about, a fourth of which judges: at least, if it is thorough, and at most."""
_WORK = 5e11
"""Multiply-accumulates that measuring may take, about; a thorough look runs models without branches on all samples."""
_BYPASSED = "bypassed"
"""What the file is called in which sums are one of their terms."""

Saved = Callable[["Analysis", Branch], float]
"""What goes of the goal's metric with a branch, as a share of the whole."""


@dataclass(frozen=True, slots=True)
class Shortened:
    """A model without some branches.

    Attributes:
        cut: without them.
        repaired: with layers solved again, so that they make up for it.
        check: the proof that the first one is the file in which these sums are their other terms.
    """

    cut: Model
    repaired: Model
    check: Check


class Shortener:
    """What is known of a model's branches."""

    def __init__(
        self, original: Model, protect: Sequence[str], seed: int, samples: Samples, stages: Stages, saved: Saved
    ) -> None:
        """Nothing runs yet.

        Args:
            original: the model.
            protect: globs over nodes and tensors that stay.
            seed: of rows that are drawn, and of the proof's inputs.
            samples: that layers are fitted on, and that losses are measured on.
            stages: announces and times what is done.
            saved: what a branch takes of what is to be saved.
        """
        self._original, self._protect, self._seed, self._samples = original, protect, seed, samples
        self._stages, self._saved = stages, saved

    @cached_property
    def _analysis(self) -> Analysis:
        with self._stages("analysis", "finding branches"):
            return Couple().run(Normalize().run(self._original))

    @cached_property
    def _calibration(self) -> Calibration:
        return self._analysis.calibration(self._samples)

    @cached_property
    def branches(self) -> list[Branch]:
        """Those that may go, in the order of their sums."""
        analysis = self._analysis
        layers = {reader.node.index for reader in linear_readers(analysis.model, analysis.coupling)}
        found = find_branches(analysis.model, analysis.shapes, layers)
        return [branch for branch in found if not self._is_protected(branch)]

    def _is_protected(self, branch: Branch) -> bool:
        nodes = [self._analysis.model.graph.node[place] for place in (*branch.nodes, branch.place)]
        names = {name for node in nodes for name in (node.name, *node.input, *node.output)}
        return any(fnmatchcase(name, glob) for glob in self._protect for name in names)

    @cached_property
    def ladder(self) -> list[tuple[Branch, float]]:
        """Branches in the order in which they go: what loses least for what it saves first; each with the share that remains."""
        branches, original = self.branches, self._analysis.float32
        calibration, thorough = self._few()
        with self._stages("sensitivity", "measuring what each branch costs"):
            lost = BranchLosses(self._seed, thorough).run(original, branches, calibration, self._stages.tell)
        saved = [self._saved(self._analysis, branch) for branch in branches]
        found, remains = [], 1.0
        for number in in_order(branches, saved, lost):
            remains -= saved[number]
            found.append((branches[number], remains))
        return found

    def _few(self) -> tuple[Calibration, bool]:
        """As many samples as branches can be measured on, evenly spread; and whether there is time for a thorough look."""
        macs = max(self._analysis.costs.cost({}).macs, 1)
        each = 2 * macs * len(self.branches)
        thorough = each * _FEW <= _WORK
        wanted = min(max(_WORK / (each if thorough else macs), _LEAST), _MOST)
        every = int((self._samples.count or 0) / wanted)
        some = held_out(self._samples, self._original.inputs, every)[1] if every > 1 else self._samples
        return self._analysis.calibration(some), thorough

    def build(self, count: int) -> Shortened:
        """The model without the first branches of the `ladder`.

        Raises:
            VerificationError: the proof fails.
        """
        analysis, original = self._analysis, self._analysis.float32
        gone = self._first(count)
        cut = self.draft(count)
        with self._stages("verification", "verifying: without branches == the file with their sums bypassed"):
            check = self._proof(cut, gone)
        with self._stages("repair", "repairing"):
            bypassed = Bypass().run(original.model, gone)
            fitted = Repair(self._seed).run(bypassed, original, Plan(), self._calibration.every, self._stages.tell).model
        moved = differing_weights(fitted, bypassed)
        repaired = with_fitted_weights(Bypass().run(analysis.model, gone), fitted, moved)
        return Shortened(cut, self._written(repaired, gone), check)

    def draft(self, count: int) -> Model:
        """The model without the first branches, not repaired."""
        gone = self._first(count)
        return self._written(Bypass().run(self._analysis.model, gone), gone)

    def _first(self, count: int) -> list[Branch]:
        return [branch for branch, _ in self.ladder[:count]]

    def _written(self, bypassed: Model, gone: Sequence[Branch]) -> Model:
        return Restore().run(tie(RemoveBranches().run(bypassed, gone)), self._original)

    def _proof(self, cut: Model, gone: Sequence[Branch]) -> Check:
        """Compare with the file in which these sums are bypassed; where they are others there, with what was normalised."""
        file, normal = self._original, self._analysis.model
        makers = {name: place for place, node in enumerate(file.graph.node) for name in node.output}
        there = [replace(branch, place=makers[branch.total]) for branch in gone if branch.total in makers]
        spelled = [(list(normal.graph.node[one.place].input), one.total) for one in gone]
        if [(list(file.graph.node[one.place].input), one.total) for one in there] == spelled:
            outcome = unchanged(cut, Bypass().run(file, there), seed=self._seed, against=_BYPASSED)
        else:
            judged(normal, file, self._seed)
            outcome = compare(cut, Bypass().run(normal, gone), seed=self._seed, against=_BYPASSED)
        return held(outcome, file, "without branches")


def in_order(branches: Sequence[Branch], saved: Sequence[float], lost: Mapping[Together, float]) -> list[int]:
    """The numbers of branches, what adds least loss for what it saves first; of those that cannot go together one is left out."""
    order: list[int] = []
    left = [number for number in range(len(branches)) if saved[number] > 0]

    def rate(number: int) -> float:
        added = lost[(number,)]
        for pair in ((number - 1, number), (number, number + 1)):
            if pair in lost and not {*pair}.isdisjoint(order):
                added += lost[pair] - sum(lost[(one,)] for one in pair)
        return max(added, 0.0) / saved[number]

    while left:
        best = min(left, key=rate)
        order.append(best)
        left = [number for number in left if number != best and not branches[number].overlaps(branches[best])]
    return order
