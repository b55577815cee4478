"""From scores and a budget to widths: how many positions each group keeps."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.axes.factors import Factor, Positions, stride
from onnxprune.axes.rules.registry import Reason
from onnxprune.errors import OptionError, TargetError
from onnxprune.options.targets import Align, Target
from onnxprune.pruning.knapsack import Curve, choose_widths
from onnxprune.pruning.width_search import GroupWidths, TargetPrices, WidthSearch, WidthStep, cheapest

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.pruning.criteria import Scores

__all__ = ["Allocation", "allocate", "allocate_by_curves", "widths"]

FLOOR = 0.1
"""Every group keeps at least this share of its positions, so that no layer becomes a bottleneck where its scores are low."""
_STEPS = 20
"""Bisection steps: finer than one position in a million."""
_CLOSE = 1e-3
_WASTE = 0.01
"""Shares of the whole cost. Room of less than a thousandth is not filled, as reports show three digits; waste of more than a
hundredth is worth another arrangement, which takes many more prices."""

_NOTEWORTHY = 0.01
"""A share of the whole cost that no group reaches, from which a refusal tells it."""


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
        multiple = align.of(axis.root.size)
        step = max(step, multiple // math.gcd(multiple, 1 if member.alone else stride(axis, group.factor)))
    least = max(math.ceil(floor * group.size), step)
    first = math.ceil(least / step) * step
    return [*range(first, group.size, step), group.size]


def allocate(
    coupling: Coupling,
    scores: Mapping[str, Scores],
    prices: TargetPrices,
    target: Target,
    *,
    scope: str,
    align: Align,
    gone: Mapping[str, Positions] = MappingProxyType({}),
    own: Mapping[str, float] = MappingProxyType({}),
) -> Allocation:
    """Choose the positions to keep so that the target holds and the least score is lost.

    ``uniform`` removes the same share of every group, ``global`` what scores least anywhere, ``isomorphic`` what scores least
    among groups of the same structure (Fang et al. 2024, "Isomorphic Pruning"). No group keeps less than a tenth, or less than
    one aligned block. Widths are aligned before they are priced. ``gone`` are positions that carry no weight: they stay for
    alignment alone, and where the target is met without them nothing else goes. ``own`` are the shares of groups, by id, that
    have one of their own: the allowed width that is nearest.

    Raises:
        OptionError: the model has nothing of what the target is a fraction of.
        TargetError: even the least widths cost more; says what is reachable.
    """
    groups, allowed, spared = _choices(coupling, target, align, gone, own)
    if target.metric == "channels":
        counts, obtained = _same_share(groups, allowed, target.fraction)
    else:
        search = _ScoreSearch(groups, allowed, scores, prices, target, scope)
        found = search.run({groups[name].factor: count for name, count in spared.items()})
        if found is None:
            raise _out_of_reach(target, prices, search.least, align)
        counts, obtained = {name: found[group.factor] for name, group in groups.items()}, prices.total(found) / search.whole
    keep = {}
    for name, group in groups.items():
        count = min(counts[name], spared[name])
        if count < group.size:
            order = np.argsort(-scores[name], kind="stable")
            keep[name] = np.sort(order[:count])
    return Allocation(keep, obtained)


def allocate_by_curves(
    coupling: Coupling,
    curves: Mapping[str, Curve],
    prices: TargetPrices,
    target: Target,
    *,
    align: Align,
    exponent: float = 1.0,
    gone: Mapping[str, Positions] = MappingProxyType({}),
    own: Mapping[str, float] = MappingProxyType({}),
    kernels: TargetPrices | None = None,
) -> Allocation:
    """Choose the widths that meet the target at the least sum of predicted errors (`onnxprune.pruning.knapsack`).

    Errors are raised to ``exponent`` before they are added; ``gone`` and ``own`` are as in `allocate`, ``kernels`` as in
    `choose_widths`.

    Raises:
        OptionError: the model has nothing of what the target is a fraction of.
        TargetError: even the least widths cost more; says what is reachable.
    """
    groups, allowed, spared = _choices(coupling, target, align, gone, own)
    allowed = {name: [width for width in choices if width <= spared[name]] for name, choices in allowed.items()}
    whole = _whole(prices, target)
    curves = {name: replace(curve, error=curve.error**exponent) for name, curve in curves.items()}
    counts = choose_widths(coupling.groups, curves, allowed, prices, target.fraction * whole, kernels)
    if counts is None:
        least = cheapest({groups[name].factor: choices for name, choices in allowed.items()}, prices)
        raise _out_of_reach(target, prices, least, align)
    factors = {groups[name].factor: count for name, count in counts.items()}
    keep = {name: curves[name].keep(count) for name, count in counts.items() if count < groups[name].size}
    return Allocation(keep, prices.total(factors) / whole)


def _choices(
    coupling: Coupling, target: Target, align: Align, gone: Mapping[str, Positions], own: Mapping[str, float]
) -> tuple[dict[str, CouplingGroup], dict[str, list[int]], dict[str, int]]:
    """The groups by id, their allowed widths, and the least of these that keeps all positions that carry weight."""
    if not coupling.groups and target.fraction < 1:
        mixed = any(refusal.reason is Reason.MIXES for refusal in coupling.refusals)
        offer = "; --allow-inexact offers what normalisations run over" if mixed else ""
        raise TargetError(
            f"target {target} cannot be reached: the model has no group that can be pruned; inspect says why{offer}"
        )
    groups = {group.id: group for group in coupling.groups}
    allowed = {name: widths(group, coupling, align) for name, group in groups.items()}
    useful = {name: group.size - len(gone.get(name, ())) for name, group in groups.items()}
    spared = {name: next(width for width in allowed[name] if width >= useful[name]) for name in groups}
    for name, share in own.items():
        choices = widths(groups[name], coupling, align, min(share, FLOOR))
        spared[name] = nearest(choices, share * groups[name].size)
        allowed[name] = [spared[name]]
    return groups, allowed, spared


def _whole(prices: TargetPrices, target: Target) -> float:
    """What the target is a fraction of.

    Raises:
        OptionError: nothing.
    """
    whole = prices.whole
    if not whole:
        raise OptionError(
            f"target {target}: the model has no {target.metric} to take a fraction of: write channels=0.5, or size=0.5"
        )
    return whole


def _out_of_reach(target: Target, prices: TargetPrices, least: GroupWidths, align: Align) -> TargetError:
    remains = math.ceil(prices.total(least) / prices.whole * 1000 - 1e-6) / 1000  # rounded up: it is offered as a target
    aligned = f" and alignment {align.told}; try --align 1, or" if align.channels > 1 else ";"
    text = f"at least {target.metric}={remains:.3f} remains with a floor of {FLOOR:.0%} of each group{aligned} "
    text += "ask for at least that"
    outside = 0.0 if target.timed else prices.total(dict.fromkeys(least, 0)) / prices.whole
    if outside >= _NOTEWORTHY:
        text += f"; no group holds {outside:.1%} of the {target.metric}: inspect says why"
    return TargetError(f"target {target} cannot be reached: {text}")


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


class _ScoreSearch(WidthSearch):
    """The share of the positions to remove, by bisection; then what room is left, step by step."""

    def __init__(
        self, groups: Mapping[str, CouplingGroup], allowed: Mapping[str, list[int]], scores: Mapping[str, Scores],
        prices: TargetPrices, target: Target, scope: str,
    ) -> None:  # fmt: skip
        self.whole = _whole(prices, target)
        super().__init__({groups[name].factor: allowed[name] for name in groups}, prices, target.fraction * self.whole)
        self.worth_filling = _CLOSE * self.whole
        self.ids = {group.factor: name for name, group in groups.items()}
        self.ascending = {group.factor: np.sort(scores[name]) for name, group in groups.items()}
        self.pools = self._pools(groups.values(), scope)

    def _pools(self, groups: Collection[CouplingGroup], scope: str) -> dict[Factor, Scores] | None:
        """The sorted scores that each group is ranked among; ``None`` where every group loses the same share."""
        if scope == "uniform":
            return None
        members: dict[Any, list[Factor]] = {}
        for group in groups:
            members.setdefault(structure(group) if scope == "isomorphic" else "", []).append(group.factor)
        pools: dict[Factor, Scores] = {}
        for factors in members.values():
            pool = np.sort(np.concatenate([self.ascending[factor] for factor in factors]))
            pools |= dict.fromkeys(factors, pool)
        return pools

    def run(self, spared: GroupWidths) -> GroupWidths | None:
        """The widths, none more than what positions with weight need, ``spared``; ``None`` if even the least cost more."""
        if self.prices.total(spared) <= self.budget:
            return spared
        if self.prices.total(self.least) > self.budget:
            return None
        found = self.within(self._at, 0.0, 1.0, _STEPS)
        counts = self._approach(self.fill(dict(found[-1][1])))
        return {factor: min(count, spared[factor]) for factor, count in counts.items()}

    def _at(self, share: float) -> GroupWidths:
        """Aligned widths when this share of the positions goes."""
        counts = {}
        for factor, scores in self.ascending.items():
            if self.pools is None:
                wanted = factor.size * (1 - share)
            else:
                pool = self.pools[factor]
                rank = int(share * len(pool))
                threshold = pool[rank] if rank < len(pool) else np.inf
                wanted = factor.size - float(scores.searchsorted(threshold))
            counts[factor] = nearest(self.allowed[factor], wanted)
        return counts

    def loss(self, factor: Factor, present: int, place: int) -> float:
        """The sum of the scores that go, or that come back."""
        low, high = sorted((self.allowed[factor][present], self.allowed[factor][place]))
        lost = float(self.ascending[factor][factor.size - high : factor.size - low].sum())
        return lost if place < present else -lost

    def gain(self, step: WidthStep, counts: GroupWidths) -> tuple[float, float, str, int]:
        """The mean score of the positions that come back: the group that loses most per position is widened first."""
        mean = -step.loss / (step.width - counts[step.factor])
        return mean, step.price, self.ids[step.factor], step.width

    def harm(self, step: WidthStep, over: float) -> tuple[bool, float, float, str, int]:
        """The score lost for what is needed of the saving; steps that save far more than that come last."""
        wasteful = -step.price > over + _WASTE * self.whole
        return wasteful, step.loss / min(-step.price, over), -step.price, self.ids[step.factor], step.width

    def _approach(self, counts: GroupWidths) -> GroupWidths:
        """Come closer to the budget where one coarse step wasted it: widen a group and narrow others instead.

        A 32-wide stem that holds a third of the cost either stays or loses half; where bisection took it, others may do.
        """
        while self.budget - self.prices.total(counts) > _WASTE * self.whole:
            trials = (self._widened(counts, step) for step in self.steps(counts, 1))
            best = max((trial for trial in trials if trial is not None), key=self.prices.total, default=None)
            if best is None or self.prices.total(best) <= self.prices.total(counts) + _CLOSE * self.whole:
                break
            counts = best
        return counts

    def _widened(self, counts: GroupWidths, step: WidthStep) -> GroupWidths | None:
        """The widths after one group takes a step up and the cheapest others make room; ``None`` if they cannot."""
        trial = self.save({**counts, step.factor: step.width}, step.factor)
        return None if trial is None else self.fill(trial)


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
    """The members of a group without their names and sizes: groups with equal structure are ranked together."""
    return tuple(sorted((member.op, member.position, member.axis) for member in group.members))
