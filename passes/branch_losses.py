"""Measure what each branch costs: the divergence of the model's outputs without it, where layers around it make up for it.

The layer in front is fitted to output the sum that the branch was a term of, and the next layers behind to output what they did.
When branches are taken out, all layers behind are repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from onnxprune.axes.plan import Plan
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.bypass import Bypass
from onnxprune.passes.repair import Repair, repair_tasks
from onnxprune.runtime.stages import StagedRun
from onnxprune.verify.suffix import SuffixDivergence

if TYPE_CHECKING:
    from onnxprune.data.calibration import Calibration
    from onnxprune.passes.analysis import Analysis
    from onnxprune.pruning.branches import Branch

__all__ = ["BranchLosses", "Together"]

_ROWS = 4096
"""Rows that are enough for a layer, unless its features need more."""
_BEHIND = 4
"""Layers behind that are repaired: on a ResNet-20 the order of its blocks is that of all, in half of the time."""

Together = tuple[int, ...]
"""Branches that go together, by their numbers."""


@dataclass(frozen=True)
class BranchLosses(Pass):
    """Measure branches one by one, and each with the next one, since neighbours may lose more than their sum."""

    seed: int = 0
    """Of the rows that are drawn where there are many."""
    pairs: bool = True
    """Whether neighbours are measured together, too."""

    def run(
        self, original: Analysis, branches: Sequence[Branch], calibration: Calibration, tell: Progress = silent
    ) -> dict[Together, float]:
        """What is lost without a branch, or two, by their numbers.

        Args:
            original: the model and its groups, in float32.
            branches: in the order of their sums.
            calibration: samples; layers are fitted on them, and outputs compared on those that are held.
            tell: is told which one is measured.
        """
        numbers = range(len(branches))
        pairs = [pair for pair in pairwise(numbers) if self.pairs and not branches[pair[0]].overlaps(branches[pair[1]])]
        bypassed = {
            some: Bypass().run(original.model, [branches[number] for number in some])
            for some in (*((number,) for number in numbers), *pairs)
        }
        starts = {
            some: min([branches[some[0]].place, *(task.reader.node.index for task in repair_tasks(model, original))])
            for some, model in bypassed.items()
        }
        repair = Repair(self.seed, _ROWS, _BEHIND)
        found: dict[Together, float] = {}
        with StagedRun(original.model, calibration.held) as stages:
            meter = SuffixDivergence(original.model, calibration.held, stages)
            for some in sorted(starts, key=starts.__getitem__):
                tell(f"measuring what each branch costs ({len(found) + 1} of {len(starts)})")
                repaired = repair.run(bypassed.pop(some), original, Plan(), calibration.fit).model
                found[some] = meter.measure(repaired, starts[some])
        return found
