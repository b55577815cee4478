"""From scores and a budget to widths: how many positions each group keeps."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import Factor, Positions, length
from onnxprune.axes.rules.registry import Reason
from onnxprune.errors import TargetError
from onnxprune.options.prune import Align, Target
from onnxprune.pruning.knapsack import Curve, Prices, choose

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup

__all__ = ["Allocation", "allocate", "widths"]

Scores = npt.NDArray[np.float64]

FLOOR = 0.1
"""Every group keeps at least this share of its positions."""
_STEPS = 20
"""Bisection steps: finer than one position in a million."""
_CLOSE = 1e-3
_WASTE = 0.01
"""Shares of the whole cost: what is not worth filling, and what is worth another arrangement."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Attributes:
    keep: the positions that remain, for each group that loses any.
    obtained: the fraction of the target's metric that remains.
    """

    keep: dict[str, Positions]
    obtained: float


def widths(group: CouplingGroup, coupling: Coupling, align: Align, floor: float = FLOOR) -> list[int]:
    """The numbers of positions a group may keep, ascending; the last is all of them.

    Every axis that the group runs along keeps a width that is a multiple of ``align``: a group whose position stands for 64
    channels of each axis (a head) can go one by one where 16 is asked for. How narrow the axis is may matter, see `Align`.
    """
    step = 1
    for member in group.members:
        axis = coupling.axes[member.value][member.axis]
        stride = 1 if member.alone else axis.root.size - length(axis, {group.factor: group.size - 1})
        multiple = align.of(axis.root.size)
        step = max(step, multiple // math.gcd(multiple, stride))
    least = max(math.ceil(floor * group.size), step)
    first = math.ceil(least / step) * step
    return [*range(first, group.size, step), group.size]


def allocate(
    coupling: Coupling,
    scores: Mapping[str, Scores],
    prices: Prices,
    target: Target,
    *,
    scope: str,
    align: Align,
    gone: Mapping[str, Positions] = MappingProxyType({}),
) -> Allocation:
    """Choose the positions to keep so that the target holds and the least score is lost.

    ``uniform`` removes the same share of every group, ``global`` what scores least anywhere, ``isomorphic`` what scores least
    among groups of the same structure (Fang et al. 2024, "Isomorphic Pruning"). No group keeps less than a tenth, or less than
    one aligned block. Widths are aligned before they are priced. ``gone`` are positions that carry no weight: they stay for
    alignment alone, and where the target is met without them nothing else goes.

    Raises:
        TargetError: even the least widths cost more; says what is reachable.
    """
    _check_groups(coupling, target)
    groups = {group.id: group for group in coupling.groups}
    allowed = {name: widths(group, coupling, align) for name, group in groups.items()}
    spared = _spared(groups, allowed, gone)
    if target.metric == "channels":
        counts, obtained = _same_share(groups, allowed, target.fraction)
    else:
        counts, obtained = _Search(groups, allowed, scores, prices, target, scope, align).run(spared)
    keep = {}
    for name, group in groups.items():
        count = min(counts[name], spared[name])
        if count < group.size:
            order = np.argsort(-scores[name], kind="stable")
            keep[name] = np.sort(order[:count])
    return Allocation(keep, obtained)


def by_curves(
    coupling: Coupling,
    curves: Mapping[str, Curve],
    prices: Prices,
    target: Target,
    *,
    align: Align,
    exponent: float = 1.0,
    gone: Mapping[str, Positions] = MappingProxyType({}),
) -> Allocation:
    """Choose the widths that meet the target at the least sum of predicted errors (`onnxprune.pruning.knapsack`).

    Errors are raised to ``exponent`` before they are added; ``gone`` are positions that carry no weight.

    Raises:
        TargetError: even the least widths cost more; says what is reachable.
    """
    _check_groups(coupling, target)
    groups = {group.id: group for group in coupling.groups}
    allowed = {name: widths(group, coupling, align) for name, group in groups.items()}
    spared = _spared(groups, allowed, gone)
    allowed = {name: [width for width in choices if width <= spared[name]] for name, choices in allowed.items()}
    whole = prices.total({})
    curves = {name: replace(curve, error=curve.error**exponent) for name, curve in curves.items()}
    counts = choose(coupling.groups, curves, allowed, prices, target.fraction * whole)
    if counts is None:
        least = prices.total({groups[name].factor: choices[0] for name, choices in allowed.items()}) / whole
        raise _out_of_reach(target, least, align)
    factors = {groups[name].factor: count for name, count in counts.items()}
    keep = {name: curves[name].keep(count) for name, count in counts.items() if count < groups[name].size}
    return Allocation(keep, prices.total(factors) / whole)


def _check_groups(coupling: Coupling, target: Target) -> None:
    if not coupling.groups and target.fraction < 1:
        mixed = any(refusal.reason is Reason.MIXES for refusal in coupling.refusals)
        offer = "; --allow-inexact offers what normalisations run over" if mixed else ""
        raise TargetError(
            f"target {target} cannot be reached: the model has no group that can be pruned; inspect says why{offer}"
        )


def _spared(
    groups: Mapping[str, CouplingGroup], allowed: Mapping[str, list[int]], gone: Mapping[str, Positions]
) -> dict[str, int]:
    """The least allowed width of each group that keeps all positions that carry weight."""
    useful = {name: group.size - len(gone.get(name, ())) for name, group in groups.items()}
    return {name: next(width for width in allowed[name] if width >= useful[name]) for name in groups}


def _out_of_reach(target: Target, least: float, align: Align) -> TargetError:
    aligned = f" and alignment {align}; try --align 1" if align.channels > 1 else ""
    return TargetError(
        f"target {target} cannot be reached: at least {target.metric}={least:.3f} remains "
        f"with a floor of {FLOOR:.0%} of each group{aligned} or a target of at least that"
    )


def _same_share(
    groups: Mapping[str, CouplingGroup], allowed: Mapping[str, list[int]], fraction: float
) -> tuple[dict[str, int], float]:
    """Every group that has a choice keeps the largest width within the fraction, or its least width."""
    counts = {}
    for name, group in groups.items():
        at = bisect_right(allowed[name], fraction * group.size + 1e-9)
        counts[name] = allowed[name][max(at - 1, 0)]
    chosen = [name for name in groups if len(allowed[name]) > 1]
    total = sum(groups[name].size for name in chosen)
    return counts, sum(counts[name] for name in chosen) / total if total else 1.0


class _Search:
    """The share to remove, by bisection; then what room is left, block by block."""

    def __init__(
        self,
        groups: Mapping[str, CouplingGroup],
        allowed: Mapping[str, list[int]],
        scores: Mapping[str, Scores],
        prices: Prices,
        target: Target,
        scope: str,
        align: Align,
    ) -> None:
        self.groups, self.allowed, self.prices, self.target, self.align = groups, allowed, prices, target, align
        self.ascending = {name: np.sort(scores[name]) for name in groups}
        self.whole = prices.total({})
        self.budget = target.fraction * self.whole
        self.pools = self._pools(scope)

    def _pools(self, scope: str) -> dict[str, Scores] | None:
        """The sorted scores that each group is ranked among; ``None`` where every group loses the same share."""
        if scope == "uniform":
            return None
        members: dict[Any, list[str]] = {}
        for name, group in self.groups.items():
            members.setdefault(structure(group) if scope == "isomorphic" else "", []).append(name)
        pools: dict[str, Scores] = {}
        for names in members.values():
            pool = np.sort(np.concatenate([self.ascending[name] for name in names]))
            pools |= dict.fromkeys(names, pool)
        return pools

    def at(self, share: float) -> dict[str, int]:
        """Aligned widths when this share of the positions goes."""
        counts = {}
        for name, group in self.groups.items():
            if self.pools is None:
                wanted = group.size * (1 - share)
            else:
                pool = self.pools[name]
                rank = int(share * len(pool))
                threshold = pool[rank] if rank < len(pool) else np.inf
                wanted = group.size - float(self.ascending[name].searchsorted(threshold))
            counts[name] = nearest(self.allowed[name], wanted)
        return counts

    def price(self, counts: Mapping[str, int]) -> float:
        return self.prices.total(self.by_factor(counts))

    def by_factor(self, counts: Mapping[str, int]) -> dict[Factor, int]:
        return {self.groups[name].factor: count for name, count in counts.items()}

    def run(self, spared: Mapping[str, int]) -> tuple[dict[str, int], float]:
        """The widths, none more than ``spared``: what positions without any weight leave."""
        if self.price(spared) <= self.budget:
            return dict(spared), self.price(spared) / self.whole
        least = self.price({name: allowed[0] for name, allowed in self.allowed.items()})
        if least > self.budget:
            raise _out_of_reach(self.target, least / self.whole, self.align)
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.price(self.at(middle)) <= self.budget else (middle, high)
        counts = self._approach(self._fill(self.at(high)))
        counts = {name: min(count, spared[name]) for name, count in counts.items()}
        return counts, self.price(counts) / self.whole

    def _fill(self, counts: dict[str, int]) -> dict[str, int]:
        """Give room that alignment left over to the groups that lose most by going without, as far as it lasts."""
        spent = self.price(counts)
        factors = self.by_factor(counts)
        while self.budget - spent > _CLOSE * self.whole:
            moves = []
            for name, group in self.groups.items():
                at = bisect_left(self.allowed[name], counts[name]) + 1
                if at == len(self.allowed[name]):
                    continue
                wider = self.allowed[name][at]
                price = self.prices.change(factors, group.factor, wider)
                if price <= self.budget - spent:
                    scores = self.ascending[name]
                    gain = scores[group.size - wider : group.size - counts[name]].mean()
                    moves.append((gain, price, name, wider))
            if not moves:
                break
            _, price, name, wider = max(moves)
            counts[name] = factors[self.groups[name].factor] = wider
            spent += price
        return counts

    def _approach(self, counts: dict[str, int]) -> dict[str, int]:
        """Come closer to the budget where one coarse step wasted it: widen a group and narrow others instead.

        A 32-wide stem that holds a third of the cost either stays or loses half; where bisection took it, others may do.
        """
        while self.budget - self.price(counts) > _WASTE * self.whole:
            trials = (self._widened(counts, name) for name in self.groups)
            best = max((trial for trial in trials if trial is not None), key=self.price, default=None)
            if best is None or self.price(best) <= self.price(counts) + _CLOSE * self.whole:
                break
            counts = best
        return counts

    def _widened(self, counts: dict[str, int], widened: str) -> dict[str, int] | None:
        """The widths after one group takes a step up and the cheapest others make room; ``None`` if they cannot."""
        allowed = self.allowed[widened]
        at = bisect_left(allowed, counts[widened]) + 1
        if at == len(allowed):
            return None
        trial = {**counts, widened: allowed[at]}
        factors = self.by_factor(trial)
        spent = self.price(trial)
        while spent > self.budget:
            moves = []
            for name, group in self.groups.items():
                at = bisect_left(self.allowed[name], trial[name])
                if name == widened or at == 0:
                    continue
                narrower = self.allowed[name][at - 1]
                saved = -self.prices.change(factors, group.factor, narrower)
                if saved > 0:
                    lost = self.ascending[name][group.size - trial[name] : group.size - narrower].sum()
                    wasteful = saved > spent - self.budget + _WASTE * self.whole
                    moves.append((wasteful, lost / min(saved, spent - self.budget), saved, name, narrower))
            if not moves:
                return None
            _, _, saved, name, narrower = min(moves)
            trial[name] = factors[self.groups[name].factor] = narrower
            spent -= saved
        return self._fill(trial)


def nearest(allowed: Sequence[int], wanted: float) -> int:
    """The allowed width nearest to the wanted one; the smaller of two."""
    at = bisect_left(allowed, wanted)
    if at == 0:
        return allowed[0]
    if at == len(allowed):
        return allowed[-1]
    below, above = allowed[at - 1], allowed[at]
    return below if wanted - below <= above - wanted else above


def structure(group: CouplingGroup) -> tuple[tuple[str, int, int], ...]:
    """What a group is made of, up to names and sizes: groups with equal structure are ranked together."""
    return tuple(sorted((member.op, member.position, member.axis) for member in group.members))
