"""Decide how many positions each group keeps, and which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxprune.axes.plan import Plan
from onnxprune.options.targets import Align, Target
from onnxprune.passes.base import Pass
from onnxprune.pruning.allocation import allocate, allocate_by_curves
from onnxprune.pruning.cost import KERNELS
from onnxprune.pruning.layer_widths import shares_of

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.passes.analysis import Analysis
    from onnxprune.pruning.criteria import Scores
    from onnxprune.pruning.knapsack import Curve
    from onnxprune.pruning.width_search import TargetPrices

__all__ = ["Allocate"]


@dataclass(frozen=True)
class Allocate(Pass):
    """Make the plan that meets a target at the least loss of scores."""

    target: Target
    """What remains."""
    scope: str = "global"
    """Which groups are ranked together: uniform, global, isomorphic; or sensitivity, where curves say what each group costs."""
    align: Align = Align(16, 4)
    """Widths are multiples of this: auto (16, in narrow layers 8 or 4; 4 where latency is the target), 1 or N.

    With auto, errors are weighed against what kernels compute, where errors are known and multiply-accumulates stand for time.
    """
    exponent: float = 1.0
    """Of predicted errors before they are added; above 1, many small losses are better than a large one."""

    layers: tuple[tuple[str, float], ...] = ()
    """Globs over layers with the share of their outputs that remains; the target is shared out among the others."""

    def run(
        self,
        analysis: Analysis,
        scores: Mapping[str, Scores],
        *,
        curves: Mapping[str, Curve] = MappingProxyType({}),
        latencies: TargetPrices | None = None,
        gone: Mapping[str, Positions] = MappingProxyType({}),
    ) -> Plan:
        """The plan.

        Args:
            analysis: the groups.
            scores: the importance of each position of each group, by group id.
            curves: what each group costs, by group id; read where the scope is sensitivity.
            latencies: of the model under any plan; read where latency is the target.
            gone: positions that carry no weight, by group id.

        Raises:
            OptionError: a glob names no layer whose outputs can be pruned.
            TargetError: the target cannot be reached; says what is reachable.
        """
        own = shares_of(analysis.coupling, self.layers) if self.layers else {}
        target, align = self.target, self.align.suited(timed=self.target.timed)
        prices = analysis.costs.of(target.metric) if latencies is None else latencies
        if self.scope == "sensitivity" and target.metric != "channels":
            kernels = analysis.costs.of(KERNELS) if align.least and target.metric == "macs" else None
            found = allocate_by_curves(
                analysis.coupling,
                curves,
                prices,
                target,
                align=align,
                exponent=self.exponent,
                gone=gone,
                own=own,
                kernels=kernels,
            )
        else:
            scope = "uniform" if self.scope == "sensitivity" else self.scope
            found = allocate(analysis.coupling, scores, prices, target, scope=scope, align=align, gone=gone, own=own)
        return Plan(found.keep)
