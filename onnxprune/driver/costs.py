"""What a file costs, and what is left of it: by a plan, and as it is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from onnxprune.ir.files import written_bytes
from onnxprune.pruning.cost import COST_METRICS, Cost

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.driver.result import Pruned
    from onnxprune.passes.analysis import Analysis

__all__ = ["outcome", "price"]


def price(analysis: Analysis, plan: Plan) -> tuple[Cost, Cost, dict[str, float]]:
    """What the file costs, what it is expected to cost under a plan, and the fraction of each metric that remains."""
    groups = analysis.coupling.groups
    counts = {group.factor: len(plan.keep[group.id]) for group in groups if group.id in plan.keep}
    before, after = analysis.costs.original(), analysis.costs.cost(counts)
    obtained = _fractions(before, after)
    positions = sum(group.size for group in groups)
    obtained["channels"] = sum(counts.get(g.factor, g.size) for g in groups) / positions if positions else 1.0
    return before, after, obtained


def outcome(pruned: Pruned) -> tuple[Cost, Cost, dict[str, float]]:
    """As `price`, with the parameters and bytes of the small model as it is written."""
    before, planned, obtained = price(pruned.analysis, pruned.plan)
    after = dataclasses.replace(planned, params=pruned.params, size=written_bytes(pruned.model))
    return before, after, {**obtained, **_fractions(before, after)}


def _fractions(before: Cost, after: Cost) -> dict[str, float]:
    return {metric: getattr(after, metric) / max(getattr(before, metric), 1) for metric in COST_METRICS}
