"""Measure what each branch costs: the divergence of the model's outputs without it, where layers around it make up for it.

The layer in front is fitted to output the sum that the branch was a term of, and, if there is time, the next layers behind to
output what they did. When branches are taken out, all layers behind are repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.plan import Plan
from onnxprune.linear.layers import install, matrix_of
from onnxprune.linear.reconstruction import NetworkPair, Task
from onnxprune.linear.ridge import refit
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.bypass import Bypass
from onnxprune.passes.repair import Repair, repair_tasks
from onnxprune.runtime.stages import StagedRun
from onnxprune.verify.suffix import SuffixDivergence

if TYPE_CHECKING:
    from onnxprune.data.calibration import Batches, Calibration
    from onnxprune.ir.model import Model
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
    thorough: bool = True
    """Whether neighbours are measured together, too, and layers behind repaired: that runs the model for each branch anew."""

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
        pairs = [pair for pair in pairwise(numbers) if self.thorough and not branches[pair[0]].overlaps(branches[pair[1]])]
        changed = {
            some: Bypass().run(original.model, [branches[number] for number in some])
            for some in (*((number,) for number in numbers), *pairs)
        }
        tasks = {some: repair_tasks(model, original) for some, model in changed.items()}
        starts = {
            some: min([branches[some[0]].place, *(task.reader.node.index for task in found)]) for some, found in tasks.items()
        }
        if not self.thorough:
            in_front = [(task, model) for some, model in changed.items() for task in tasks[some] if task.moved]
            self._fit(original.model, in_front, calibration.fit, tell)
        repair = Repair(self.seed, _ROWS, _BEHIND)
        found: dict[Together, float] = {}
        with StagedRun(original.model, calibration.held) as stages:
            meter = SuffixDivergence(original.model, calibration.held, stages)
            for some in sorted(starts, key=starts.__getitem__):
                tell(f"measuring what each branch costs ({len(found) + 1} of {len(starts)})")
                model = changed.pop(some)
                repaired = repair.run(model, original, Plan(), calibration.fit).model if self.thorough else model
                found[some] = meter.measure(repaired, starts[some])
        return found

    def _fit(self, model: Model, tasks: Sequence[tuple[Task, Model]], feeds: Batches, tell: Progress) -> None:
        """Fit layers in front of branches, each in a model of its own, from one run: they read what they do in the original."""
        ordered = sorted(tasks, key=lambda pair: pair[0].reader.node.index)
        alone = [task for task, _ in ordered]
        with StagedRun(model, feeds, keep={task.target for task in alone}) as ahead, StagedRun(model, feeds) as run:
            pair = NetworkPair(ahead, run, alone, most=_ROWS)
            for count, (task, changed) in enumerate(ordered):
                tell(f"making up for branches ({count + 1} of {len(ordered)})")
                rng = np.random.default_rng([self.seed, task.reader.node.index])
                weights = refit(*pair.rows(task, task.reader, rng), matrix_of(task.reader, model)).weights
                if weights is not None:
                    install(changed, task.reader, weights)
