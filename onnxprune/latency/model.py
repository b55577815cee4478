"""What a model costs in milliseconds on this machine, as a function of how many positions each group keeps.

Segments of the graph (`onnxprune.latency.segments`) are timed at a few widths each, equal ones once, and interpolated in between.
A segment alone finds its weights in the caches, where the whole model has to fetch them, and the model has costs that are no
segment's. So the whole model is timed under a few plans, and its time is fitted as

    scale * sum of segments + per_byte * bytes of weights + offset
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from onnxprune.axes.factors import Factor, length
from onnxprune.errors import ModelError
from onnxprune.latency import _worker as worker
from onnxprune.latency.benchmark import machine_of
from onnxprune.latency.cache import LatencyCache, default_cache
from onnxprune.latency.interpolation import WIDTH_MULTIPLES, GridInterpolator, multiple_of, spaced_widths
from onnxprune.latency.measurements import TimingProgress, Timings
from onnxprune.latency.segments import Segment, SegmentedGraph, constant_bytes
from onnxprune.latency.timer import OrtTimer, Timer

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.axes.coupling import Coupling
    from onnxprune.ir.model import Model
    from onnxprune.shapes.probes import Shapes

__all__ = ["LatencyModel"]

CACHE_FORMAT = 1
"""Of what is timed; times of another format are not read."""
_POINTS = {1: (7, 4, 4), 2: (5, 3, 3)}
"""Points for each kind of width along every axis, by the number of axes."""
_FEW = {3: 3}
"""Points of any kind along every axis, where kinds would make too many combinations."""
_TOGETHER = 5
"""Points on the way on which all widths shrink together, if there are more axes than that."""
_SAMPLES = 128
"""Widths, drawn and evenly, to choose points from along an axis that is a sum or product of groups."""
_PLANS = 6
"""Plans under which the whole model is timed: three numbers are fitted to them."""
_MEMORY = 2**31
"""Bytes of all of them, which are in memory together; of a larger model there are only two."""
_ATTEMPTS, _CLOSE = 6, 0.03
"""Measurements of each of them at most, and the relative error of the fit at which two are enough."""

_FAITH = 0.3
"""Weight of the belief that segments add up to the model, beside the relative errors of its times."""
_TICK = 1e-6
"""Milliseconds below which nothing is measured."""

Floats = npt.NDArray[np.float64]
Sizes = dict[Factor, int]


@dataclass(frozen=True, slots=True)
class _Table:
    """The time of one segment.

    Attributes:
        axes: the factors that its grid runs along; ``None`` where that is the work of the segment, in operations.
        grid: milliseconds.
        weights: bytes of constants.
        pairs: for each place of the grids the digests of the model of the segment and of its baseline.
    """

    segment: Segment
    axes: tuple[Factor, ...] | None
    grid: GridInterpolator
    weights: GridInterpolator
    pairs: dict[tuple[float, ...], tuple[str, str]] = field(default_factory=dict)


class LatencyModel:
    """Milliseconds of a model under a plan, as `CostModel` has its multiply-accumulates.

    Attributes:
        scale: what the sum of the segments is multiplied with.
        per_byte: milliseconds for each byte of weights.
        offset: milliseconds of the rest.
        whole: milliseconds of the original model, as measured.
        error: the largest relative error over the plans under which the whole model was timed.
        untimed: names of the nodes that do not run alone; their time is in the other terms.
    """

    def __init__(
        self,
        model: Model,
        coupling: Coupling,
        shapes: Shapes,
        *,
        provider: str = "cpu",
        threads: int = 1,
        batch: int = 1,
        inputs: Mapping[str, Sequence[int]] | None = None,
        align: int = 1,
        cache: Path | Literal["auto"] | None = "auto",
        progress: TimingProgress | None = None,
        timer: Timer | None = None,
    ) -> None:
        """Cut the model into segments; nothing is timed yet.

        Args:
            model: the normalised graph.
            coupling: its groups.
            shapes: what the probe found about it.
            provider: cpu, cuda or tensorrt.
            threads: of ONNX Runtime within an operator.
            batch: what a dynamic batch axis is.
            inputs: other open sizes, as `benchmark` takes them in ``shapes``.
            align: what widths are multiples of where `prepare` is not told.
            cache: the file where times are kept; ``None`` for nowhere.
            progress: told (what, steps done, steps in all).
            timer: what times models, if not ONNX Runtime.

        Raises:
            OptionError: an open size has no plausible default; says which input.
            ProviderError: this machine does not have the provider.
        """
        if timer is None:
            worker.require_provider(provider)
        machine = {name: value for name, value in machine_of([provider], threads).items() if name != "system"}
        key = json.dumps({**machine, "provider": provider, "format": CACHE_FORMAT}, sort_keys=True)
        kept = LatencyCache(default_cache() if cache == "auto" else cache, key)
        self._times = Timings(timer or OrtTimer(provider, threads), kept, progress)
        self._align = align
        slots = [worker.SessionInput(value.name, "", _dims(value)) for value in model.inputs]
        bound = worker.resolve(slots, batch, inputs or {}).shapes
        self._model, self._factors = model, [group.factor for group in coupling.groups]
        self._cut = SegmentedGraph(model, coupling, shapes, bound)
        self._prepared = False
        self._widths: dict[Factor, list[int]] = {}
        self._tables: list[_Table] = []
        self._touched: dict[Factor, list[_Table]] = {}
        self.scale, self.per_byte, self.offset, self.whole, self.error = 1.0, 0.0, 0.0, 0.0, 0.0
        self.untimed: tuple[str, ...] = ()

    @property
    def timed(self) -> int:
        """How many models were timed rather than remembered."""
        return self._times.timed

    def total(self, counts: Mapping[Factor, int]) -> float:
        """Milliseconds of one inference when each factor keeps that many positions (others: all)."""
        self._ready()
        return self.offset + self._sum(self._tables, counts)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        """How much slower the model becomes when one factor goes from its present count to ``count``."""
        self._ready()
        tables = self._touched.get(factor, ())
        return self._sum(tables, {**counts, factor: count}) - self._sum(tables, counts)

    def sharing(self, factor: Factor) -> set[Factor]:
        """The factors that what a change of this one takes depends on."""
        self._ready()
        tables = self._touched.get(factor, ())
        return {leaf for table in tables for axis in table.segment.coordinates for leaf in self._cut.below(axis)} - {factor}

    def prepare(self, widths: Mapping[Factor, Sequence[int]] | None = None) -> None:
        """Time what is needed to price plans with these widths; of a group without any, multiples of the alignment.

        Raises:
            ModelError: ONNX Runtime does not run the model with these inputs.
        """
        for factor in self._factors:
            first = math.ceil(factor.size / 10 / self._align) * self._align
            asked = (widths or {}).get(factor) or range(first, factor.size, self._align)
            self._widths[factor] = sorted({*self._widths.get(factor, ()), *asked, factor.size})
        self._times.models.clear()
        self._tables = [table for segment in self._cut.segments if (table := self._table(segment))]
        self._times.measure()
        filled = {table.segment for table in self._tables if self._fill(table)}
        self._touched = {factor: [] for factor in self._factors}
        for table in self._tables:
            for leaf in {leaf for factor in table.segment.coordinates for leaf in self._cut.below(factor)}:
                self._touched[leaf].append(table)
        failed = [place for segment in self._cut.segments if segment not in filled for place in segment.nodes]
        nodes = [self._model.graph.node[place] for place in failed]
        self.untimed = tuple(node.name or f"{node.op_type}({', '.join(node.output)})" for node in nodes)
        self._calibrate()
        self._times.models.clear()
        self._prepared = True

    def _ready(self) -> None:
        if not self._prepared:
            self.prepare()

    def _sum(self, tables: Sequence[_Table], counts: Mapping[Factor, int]) -> float:
        return sum(table.grid(self._place(table, counts)) for table in tables)

    def _place(self, table: _Table, counts: Mapping[Factor, int]) -> tuple[float, ...]:
        if table.axes is None:
            return (self._cut.work(table.segment, counts),)
        return tuple([counts.get(axis, axis.size) if not axis.kind else length(axis, counts) for axis in table.axes])

    def _plans(self) -> list[Sizes]:
        """All widths, the least, and others in between, in which every group goes its own way."""
        shares = np.random.default_rng(0).uniform(-0.25, 0.25, (_PLANS, len(self._factors)))
        shares = np.clip(shares + np.linspace(1.25, -0.25, _PLANS)[:, None], 0, 1)
        if _PLANS * self._model.nbytes > _MEMORY:
            shares = shares[[0, -1]]
        return [
            {factor: _at(self._widths[factor], share) for factor, share in zip(self._factors, row, strict=True)}
            for row in shares.tolist()
        ]

    # What to time

    def _table(self, segment: Segment) -> _Table | None:
        """The points of a segment, and the models to time for it; ``None`` if it makes none."""
        axes = segment.coordinates
        places: dict[tuple[float, ...], Sizes] = {}
        if len(axes) > max(_FEW):
            places = {(self._cut.work(segment, sizes),): sizes for sizes in self._shrinking(axes, _TOGETHER)}
            points = [_of_any_kind([work for (work,) in places])]
        else:
            possible = [self._possible(axis) for axis in axes]
            points = [_points(widths, len(axes)) for widths in possible]
            for place in GridInterpolator(points).places():
                chosen = (widths[width] for widths, width in zip(possible, place, strict=True))
                places[place] = {leaf: size for sizes in chosen for leaf, size in sizes.items()}
        table = _Table(segment, axes if len(axes) <= max(_FEW) else None, GridInterpolator(points), GridInterpolator(points))
        for place, sizes in places.items():
            models = self._cut.timed(segment, sizes)
            if models is None:
                return None
            table.pairs[place] = self._times.add(models[0]), self._times.add(models[1])
        known = self._times.models
        table.weights.fill({place: constant_bytes(known[digest]) for place, (digest, _) in table.pairs.items()})
        return table

    def _possible(self, axis: Factor) -> dict[float, Sizes]:
        """Widths of an axis, each with widths of groups that give it."""
        if not axis.kind:
            return {float(width): {axis: width} for width in self._widths[axis]}
        below = sorted(self._cut.below(axis), key=self._factors.index)
        draws = np.random.default_rng(0).random((_SAMPLES, len(below))).tolist()
        drawn = [{leaf: _at(self._widths[leaf], share) for leaf, share in zip(below, row, strict=True)} for row in draws]
        return {float(length(axis, sizes)): sizes for sizes in (*drawn, *self._shrinking([axis], _SAMPLES))}

    def _shrinking(self, axes: Sequence[Factor], count: int) -> list[Sizes]:
        """Widths of the groups below some axes, from the least to all, each group going evenly through its own."""
        below = {leaf for axis in axes for leaf in self._cut.below(axis)}
        return [{leaf: _at(self._widths[leaf], share) for leaf in below} for share in np.linspace(0, 1, count).tolist()]

    # From times to costs

    def _fill(self, table: _Table) -> bool:
        """Give a table its times, or zeros; whether all of them are known."""
        layers, bases = self._timed(table, 0), self._timed(table, 1)
        if layers is None or bases is None:
            table.grid.fill(dict.fromkeys(table.pairs, 0.0))
            return False
        table.grid.fill({place: max(ms - bases[place], 0.0) for place, ms in layers.items()})
        return True

    def _timed(self, table: _Table, side: int) -> dict[tuple[float, ...], float] | None:
        """The times of the models of a segment, or of their baselines; ``None`` if one is missing."""
        times: dict[tuple[float, ...], float] = {}
        for place in table.grid.places():
            ms = self._times.get(table.pairs[place][side])
            if ms is None:
                return None
            times[place] = ms
        return table.grid.settled(times)

    def _calibrate(self) -> None:
        """Time the whole model under some plans, until a fit comes close or enough is tried; write the fit into the tables."""
        plans = self._plans()
        models = [self._cut.whole(sizes) for sizes in plans]
        wholes = [self._times.add(model) if model else "" for model in models]
        for attempt in range(_ATTEMPTS):
            again = self._times.repeat([digest for digest in wholes if digest])
            fitted = self._fit(plans, [self._times.get(digest) for digest in wholes])
            if not again or (attempt and self.error < _CLOSE):
                break
        self._times.settle()
        self.scale, self.per_byte, self.offset = fitted
        for table in self._tables:
            grid, weights = table.grid, table.weights
            grid.fill({place: self.scale * grid(place) + self.per_byte * weights(place) for place in table.pairs})

    def _fit(self, plans: Sequence[Sizes], times: Sequence[float | None]) -> list[float]:
        """Scale, milliseconds per byte, and offset."""
        if times[0] is None:
            raise ModelError(f"{self._model.name}: ONNX Runtime does not run it, so that its latency is not known: try benchmark")
        known = [(sizes, max(ms, _TICK)) for sizes, ms in zip(plans, times, strict=True) if ms is not None]
        taken = np.array([ms for _, ms in known], np.float64)
        terms = np.array([self._terms(sizes) for sizes, _ in known], np.float64)
        fitted = _solve(terms, taken)
        self.whole, self.error = times[0], float(np.max(np.abs(terms @ fitted / taken - 1)))
        found: list[float] = fitted.tolist()
        return found

    def _terms(self, counts: Sizes) -> tuple[float, float, float]:
        """What is multiplied with scale, milliseconds per byte, and offset."""
        weights = sum(table.weights(self._place(table, counts)) for table in self._tables)
        return self._sum(self._tables, counts), weights, 1.0


def _points(widths: Mapping[float, Sizes], axes: int) -> dict[int, list[float]]:
    """The widths of an axis to time, by kind."""
    if axes in _FEW:
        return _of_any_kind(spaced_widths(widths, _FEW[axes]))
    counts = zip(WIDTH_MULTIPLES, _POINTS[axes], strict=True)
    return {kind: spaced_widths([width for width in widths if multiple_of(width) == kind], count) for kind, count in counts}


def _of_any_kind(points: list[float]) -> dict[int, list[float]]:
    return dict.fromkeys(WIDTH_MULTIPLES, points)


def _at(widths: Sequence[int], share: float) -> int:
    """The width at a share of the way from the least to all."""
    return widths[round(share * (len(widths) - 1))]


def _solve(terms: Floats, taken: Floats) -> Floats:
    """What to multiply three terms with, nothing negative, to come relatively close to what was taken. Returns float64 [3].

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


def _dims(value: ValueInfoProto) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)
