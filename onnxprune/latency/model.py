"""The latency of a model on this machine, as a function of how many positions each group keeps.

A segment alone finds its weights in the caches, where the whole model has to fetch them, and the model has costs that belong to
no segment. So the time of the whole model is fitted under a few plans as

    scale * sum of segments + per_byte * bytes of weights + offset

`onnxprune.latency.profiler` takes the times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import Factor, length
from onnxprune.latency.interpolation import GridInterpolator

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.latency.segments import Segment, SegmentedGraph

__all__ = ["LatencyFit", "LatencyModel", "SegmentCost", "fit_latency"]

_FAITH = 0.3
"""Weight of the belief that segments add up to the model (scale 1), beside the relative errors of its times."""
_TICK = 1e-6
"""Milliseconds below which nothing is measured."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """The cost of one segment at any widths.

    Attributes:
        segment: the segment.
        axes: the factors that its grid runs along; ``None`` where the grid runs along the work of the segment, in operations.
        milliseconds: its time.
        weight_bytes: bytes of its constants.
    """

    segment: Segment
    axes: tuple[Factor, ...] | None
    milliseconds: GridInterpolator
    weight_bytes: GridInterpolator

    def point(self, graph: SegmentedGraph, counts: Mapping[Factor, int]) -> tuple[float, ...]:
        """The point of its grid when each factor keeps so many positions."""
        if self.axes is None:
            return (graph.work(self.segment, counts),)
        return tuple([counts.get(axis, axis.size) if not axis.kind else length(axis, counts) for axis in self.axes])

    def fitted(self, fit: LatencyFit) -> SegmentCost:
        """The same segment, with the milliseconds that it adds to the whole model."""
        points = self.milliseconds.points()
        times = {point: fit.scale * self.milliseconds(point) + fit.per_byte * self.weight_bytes(point) for point in points}
        return replace(self, milliseconds=self.milliseconds.with_values(times))


@dataclass(frozen=True, slots=True)
class LatencyFit:
    """The fit of the sum of the segments to the whole model.

    Attributes:
        scale: the factor of the sum of the segments.
        per_byte: milliseconds for each byte of weights.
        offset: milliseconds of the rest.
        whole: milliseconds of the original model, as measured.
        error: the largest relative error over the plans under which the whole model was timed.
    """

    scale: float
    per_byte: float
    offset: float
    whole: float
    error: float


class LatencyModel:
    """Milliseconds of a model under a plan, as `CostModel` has its multiply-accumulates.

    Attributes:
        fit: of the sum of the segments to the whole model.
        untimed: names of the nodes that do not run alone; the other terms of the fit hold their time.
    """

    def __init__(
        self,
        graph: SegmentedGraph,
        factors: Sequence[Factor],
        costs: Sequence[SegmentCost],
        fit: LatencyFit,
        untimed: tuple[str, ...] = (),
    ) -> None:
        """Combine measured segments.

        Args:
            graph: what the segments are cut from.
            factors: of the groups.
            costs: of the segments, as they were measured alone.
            fit: of the whole model.
            untimed: see the class.
        """
        self.fit, self.untimed = fit, untimed
        self._graph, self._costs, self._factors = graph, [cost.fitted(fit) for cost in costs], factors
        self._touched: dict[Factor, list[SegmentCost]] = {factor: [] for factor in factors}
        for cost in self._costs:
            for leaf in {leaf for factor in cost.segment.coordinates for leaf in graph.below(factor)}:
                self._touched[leaf].append(cost)

    @property
    def whole(self) -> float:
        """Milliseconds of the model as it is."""
        return self.total({})

    def total(self, counts: Mapping[Factor, int]) -> float:
        """Milliseconds of one inference when each factor keeps that many positions (others: all)."""
        return self.fit.offset + self._sum(self._costs, counts)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        """Milliseconds by which the model becomes slower when one factor goes from its present count to ``count``."""
        costs = self._touched.get(factor, ())
        return self._sum(costs, {**counts, factor: count}) - self._sum(costs, counts)

    def sharing(self, factor: Factor) -> set[Factor]:
        """The other factors whose counts matter for what a change of this one costs."""
        costs = self._touched.get(factor, ())
        return {leaf for cost in costs for axis in cost.segment.coordinates for leaf in self._graph.below(axis)} - {factor}

    def blended(self, other: LatencyModel, taken: Callable[[Sequence[NodeProto]], bool]) -> LatencyModel:
        """The same with some segments in the form of another one, as int8; what conversions between them take is left out.

        Args:
            other: of the same graph, in another form.
            taken: tells of the nodes of a segment whether its time is the other's.
        """
        nodes = self._graph.model.graph.node
        choices = [taken([nodes[place] for place in cost.segment.nodes]) for cost in self._costs]
        costs = [theirs if other_is else ours for other_is, ours, theirs in zip(choices, self._costs, other._costs, strict=True)]
        share = sum(choices) / max(len(choices), 1)
        offset = self.fit.offset + share * (other.fit.offset - self.fit.offset)
        fit = LatencyFit(1.0, 0.0, offset, math.nan, max(self.fit.error, other.fit.error))
        return LatencyModel(self._graph, self._factors, costs, fit, self.untimed)

    def _sum(self, costs: Sequence[SegmentCost], counts: Mapping[Factor, int]) -> float:
        return sum(cost.milliseconds(cost.point(self._graph, counts)) for cost in costs)


def fit_latency(
    graph: SegmentedGraph,
    costs: Sequence[SegmentCost],
    plans: Sequence[Mapping[Factor, int]],
    times: Sequence[float | None],
) -> LatencyFit:
    """Fit the times of the whole model.

    Args:
        graph: what the segments are cut from.
        costs: of the segments alone.
        plans: how many positions each factor keeps; the first plan keeps all.
        times: milliseconds of the model under each plan, ``None`` where it was not timed; the first is known.
    """
    known = [(counts, max(ms, _TICK)) for counts, ms in zip(plans, times, strict=True) if ms is not None]
    taken = np.array([ms for _, ms in known], np.float64)
    terms = np.array([_terms(graph, costs, counts) for counts, _ in known], np.float64)
    fitted = _solve(terms, taken)
    scale, per_byte, offset = fitted.tolist()
    return LatencyFit(scale, per_byte, offset, times[0] or 0.0, float(np.max(np.abs(terms @ fitted / taken - 1))))


def _terms(graph: SegmentedGraph, costs: Sequence[SegmentCost], counts: Mapping[Factor, int]) -> tuple[float, float, float]:
    """The factors of scale, milliseconds per byte, and offset."""
    points = [cost.point(graph, counts) for cost in costs]
    milliseconds = sum(cost.milliseconds(point) for cost, point in zip(costs, points, strict=True))
    return milliseconds, sum(cost.weight_bytes(point) for cost, point in zip(costs, points, strict=True)), 1.0


def _solve(terms: Floats, taken: Floats) -> Floats:
    """Factors of three terms, none negative, whose sum comes relatively close to the times. Returns float64 [3].

    The first two terms shrink together, so that many mixtures fit; of these it is the one with a first factor near 1.
    """
    rows = np.vstack([terms / taken[:, None], [_FAITH, 0.0, 0.0]])
    wanted = np.append(np.ones(len(taken)), _FAITH)
    best, found = np.inf, np.zeros(3)
    for columns in ([0], [2], [0, 2], [0, 1], [0, 1, 2]):
        factors = np.linalg.lstsq(rows[:, columns], wanted)[0]
        error = float(np.sum((rows[:, columns] @ factors - wanted) ** 2))
        if factors.min() >= 0 and error < best:
            best, found = error, np.zeros(3)
            found[columns] = factors
    return found
