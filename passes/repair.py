"""Repair: linear readers re-solved so that the pruned network outputs what the original did, on calibration samples.

Each reader of the pruned network, in topological order, gets the weights that map *its* input (what the pruned and so far
repaired network feeds it) to the *original's* output, by affine ridge regression towards the weights it has. Where its output
is added to other activations, the sum is what is matched, so that errors do not pile up along a residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import Keeper
from onnxprune.ir.model import Model
from onnxprune.linear.layers import install, linear_readers, matrix_of, weight_products
from onnxprune.linear.reconstruction import NetworkPair, Repaired, Task, tasks_of
from onnxprune.linear.ridge import refit
from onnxprune.passes.base import Fitted, Pass, Progress, silent
from onnxprune.runtime.stages import StagedRun

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.data.calibration import Batches
    from onnxprune.passes.analysis import Analysis

__all__ = ["Repair", "repair_tasks", "unrepaired_bodies"]

_ROWS = 16384
"""Rows that are enough for a reader of few features."""


@dataclass(frozen=True)
class Repair(Pass):
    """Re-solve every reader whose input has changed."""

    seed: int = 0
    """Of the rows that are drawn where there are many."""
    rows: int = _ROWS
    """That are enough for a reader, unless its features need more."""
    behind: int | None = None
    """How many readers that sum over channels are solved behind those whose target moved; ``None`` for all, of any kind."""

    def run(self, pruned: Model, original: Analysis, plan: Plan, feeds: Batches, tell: Progress = silent) -> Fitted:
        """The pruned model with its readers re-solved.

        Args:
            pruned: the original, cut down to the plan, or with branches bypassed.
            original: the original and its groups, in float32.
            plan: what remains.
            feeds: what is fitted on.
            tell: is told which reader is solved.
        """
        coupling, keep = original.coupling, plan.positions(original.coupling)
        kept = Keeper(keep)
        counts = {factor: len(positions) for factor, positions in keep.items()}
        tasks = repair_tasks(pruned, original)
        if self.behind is not None:
            dense = [task.reader.weight for task in tasks if not task.moved and task.reader.groups == 1]
            near = set(dense[: self.behind])
            tasks = [task for task in tasks if task.moved or task.reader.weight in near]
        repaired = pruned.copy()
        done = []
        with StagedRun(original.model, feeds, keep={task.target for task in tasks}) as large, StagedRun(repaired, feeds) as small:
            pair = NetworkPair(large, small, tasks, lambda value: kept(coupling.axes.get(value, ())), most=self.rows)
            for count, task in enumerate(tasks):
                tell(f"repairing ({count + 1} of {len(tasks)})")
                rng = np.random.default_rng([self.seed, task.reader.node.index])
                reader = task.reader.cut(counts)
                found = refit(*pair.rows(task, reader, rng), matrix_of(reader, repaired))
                if found.weights is not None:
                    install(repaired, reader, found.weights)
                done.append(Repaired(reader.name, found.before, found.after))
        return Fitted(repaired, tuple(done))


def repair_tasks(pruned: Model, original: Analysis) -> list[Task]:
    """The readers that repair looks at, in order: one that only lost outputs computes the others as it did.

    Args:
        pruned: the original, cut down to a plan, or with branches bypassed.
        original: the original and its groups.
    """
    cut = [name for name, weight in original.model.weights.items() if pruned.weights[name].shape != weight.shape]
    readers = linear_readers(original.model, original.coupling)
    return [task for task in tasks_of(original.model, readers, original.shapes, cut, pruned) if task.fed]


def unrepaired_bodies(original: Analysis, plan: Plan) -> list[str]:
    """The layers in branches and loops that read less than they did: repair does not see what they compute."""
    counts = {factor: len(positions) for factor, positions in plan.positions(original.coupling).items()}
    products = (reader for readers in weight_products(original.model, original.coupling).values() for reader in readers)
    return [one.name for one in products if one.node.inside and one.cut(counts).features < one.features]
