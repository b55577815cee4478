"""Times the segments of a model, and the model itself, and makes a `LatencyModel` of the times.

Segments of the graph (`onnxprune.latency.segments`) are timed at a few widths each, equal ones once, and interpolated in between.
The whole model is timed under a few plans, to which the sum of the segments is fitted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from onnxprune.axes.factors import Factor, length
from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.caches import user_cache
from onnxprune.latency.benchmark import machine_of
from onnxprune.latency.cache import LatencyCache
from onnxprune.latency.device_table import DeviceTable
from onnxprune.latency.inputs import SessionInput, resolve_shapes
from onnxprune.latency.interpolation import WIDTH_MULTIPLES, Point, WidthGrid, multiple_of, spaced_widths
from onnxprune.latency.machines import fingerprint
from onnxprune.latency.measurements import TimingProgress, Timings
from onnxprune.latency.model import LatencyFit, LatencyModel, SegmentCost, fit_latency
from onnxprune.latency.providers import require_provider
from onnxprune.latency.segments import Segment, SegmentedGraph, constant_bytes
from onnxprune.latency.timer import OrtTimer, Timer, yardstick
from onnxprune.runtime.custom_operators import libraries

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from onnxprune.axes.coupling import Coupling
    from onnxprune.ir.model import Model
    from onnxprune.shapes.probes import Shapes

__all__ = ["LatencyProfiler"]

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

Sizes = dict[Factor, int]


@dataclass(frozen=True, slots=True)
class _Sampling:
    """The models to time for one segment.

    Attributes:
        segment: the segment.
        axes: see `SegmentCost`.
        grid: the widths at which it is timed.
        digests: for each point of the grid those of the model of the segment and of its baseline, see `Timings`.
    """

    segment: Segment
    axes: tuple[Factor, ...] | None
    grid: WidthGrid
    digests: Mapping[Point, tuple[str, str]]


class LatencyProfiler:
    """Times what is needed to predict the latency of a model under its plans."""

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
        device: DeviceTable | None = None,
        form: Callable[[ModelProto], ModelProto] | None = None,
    ) -> None:
        """Cut the model into segments; nothing is timed yet.

        Args:
            model: the normalised graph.
            coupling: its groups.
            shapes: what the probe found about it.
            provider: cpu, cuda or tensorrt.
            threads: of ONNX Runtime within an operator.
            batch: what a dynamic batch axis is.
            inputs: other open sizes, as `benchmark` takes them in ``shapes``; what the model knows of them if none.
            align: what widths are multiples of where `profile` is not told.
            cache: the file where times are kept; ``None`` for nowhere.
            progress: told (what, steps done, steps in all).
            timer: what times models, if not ONNX Runtime.
            device: times of another device, instead of those that are taken here.
            form: what models are timed as, as `onnxprune.latency.int8_form.in_int8`; as they are if none.

        Raises:
            OptionError: an open size has no plausible default; says which input.
            ProviderError: this machine does not have the provider.
        """
        if device:
            timer, kept = _refuse, device.cache
        else:
            if timer is None:
                require_provider(provider)
            machine = machine_of([provider], threads) | {one: Path(one).stat().st_mtime_ns for one in libraries()}
            place = user_cache() / "latency.sqlite" if cache == "auto" else cache
            kept = LatencyCache(place, fingerprint(machine, provider))
        self._times = Timings(timer or OrtTimer(provider, threads), kept, yardstick(), constant_bytes, progress)
        self._align, self._device, self._form = align, device, form
        fed = [SessionInput(value.name, "", _dims(value)) for value in model.inputs]
        self._model, self._factors = model, [group.factor for group in coupling.groups]
        inputs = inputs or model.sizes.shapes(model.inputs)
        self._graph = SegmentedGraph(model, coupling, shapes, resolve_shapes(fed, batch, inputs).shapes)
        self._widths: dict[Factor, list[int]] = {}

    @property
    def timed(self) -> int:
        """The number of models that were timed rather than remembered."""
        return self._times.timed

    def profile(self, widths: Mapping[Factor, Sequence[int]] | None = None) -> LatencyModel:
        """Time what is needed for plans with these widths and those of earlier calls.

        Args:
            widths: how many positions factors may keep; of a factor without any, all multiples of the alignment from a tenth on.

        Raises:
            ModelError: ONNX Runtime does not run the model with these inputs.
            OptionError: the table of the device lacks a time.
        """
        samplings = self._samplings(widths)
        if self._device:
            self._check_complete(self._device, samplings)
        weights = [self._weight_bytes(sampling) for sampling in samplings]
        self._times.measure()
        times = [self._milliseconds(sampling) for sampling in samplings]
        costs = [
            SegmentCost(one.segment, one.axes, one.grid.interpolator(ms or dict.fromkeys(held, 0.0)), one.grid.interpolator(held))
            for one, ms, held in zip(samplings, times, weights, strict=True)
        ]
        timed = {one.segment for one, ms in zip(samplings, times, strict=True) if ms is not None}
        failed = [place for segment in self._graph.segments if segment not in timed for place in segment.nodes]
        fit = self._fit(costs)
        self._times.models.clear()
        found = LatencyModel(self._graph, self._factors, costs, fit, tuple(self._named(failed)))
        if self._device and found.whole <= 0:
            raise OptionError(
                f"--device-table {self._device.path}: {self._model.name} takes no time in it, or does not run there"
            )
        return found

    def worklist(
        self, widths: Mapping[Factor, Sequence[int]] | None = None
    ) -> tuple[dict[str, ModelProto], dict[str, ModelProto]]:
        """What `profile` times, by digest: models of layers, and the whole model under some plans; nothing is timed."""
        self._samplings(widths)
        layers = dict(self._times.models)
        wholes = [self._add(model) for sizes in self._plans() if (model := self._graph.whole(sizes))]
        return layers, {digest: self._times.models[digest] for digest in wholes}

    def _samplings(self, widths: Mapping[Factor, Sequence[int]] | None) -> list[_Sampling]:
        """The models to time for each segment, for plans with these widths and those of earlier calls."""
        for factor in self._factors:
            first = math.ceil(factor.size / 10 / self._align) * self._align
            asked = (widths or {}).get(factor) or range(first, factor.size, self._align)
            self._widths[factor] = sorted({*self._widths.get(factor, ()), *asked, factor.size})
        self._times.models.clear()
        return [sampling for segment in self._graph.segments if (sampling := self._sampling(segment))]

    def _add(self, model: ModelProto) -> str:
        """The digest of a model, which may be timed from now on; equal models have one."""
        model = self._form(model) if self._form else model
        digest = _digest(model)
        self._times.models[digest] = model
        return digest

    def _named(self, places: Iterable[int]) -> Iterator[str]:
        """The names of nodes."""
        for place in places:
            node = self._model.graph.node[place]
            yield node.name or f"{node.op_type}({', '.join(node.output)})"

    def _check_complete(self, device: DeviceTable, samplings: Sequence[_Sampling]) -> None:
        """Nothing happens if the table of a device has all times that are needed."""
        unknown = set(self._times.unknown(self._times.models))
        for sampling in samplings:
            if any(unknown.intersection(pair) for pair in sampling.digests.values()):
                anchor = sampling.segment.anchor
                name = next(self._named(sampling.segment.nodes if anchor is None else [anchor.index]))
                lacks = f"it lacks {len(unknown)} times of {self._model.name}, the first of layer {name}"
                raise OptionError(
                    f"--device-table {device.path}: {lacks}: run latency shapes with this model and the same --align, --protect, "
                    "--only, --allow-inexact, --lossless and samples, and measure what it writes on the device"
                )

    def _fit(self, costs: Sequence[SegmentCost]) -> LatencyFit:
        """Time the whole model under some plans, until a fit comes close or enough is tried."""
        plans = self._plans()
        models = [self._graph.whole(sizes) for sizes in plans]
        digests = [self._add(model) if model else "" for model in models]
        if self._device and any(self._times.unknown(filter(None, digests))):
            lacks = f"it lacks times of the whole of {self._model.name}"
            raise OptionError(f"--device-table {self._device.path}: {lacks}: give its command again on the device")
        for attempt in range(_ATTEMPTS):
            again = self._times.repeat([digest for digest in digests if digest])
            times = [self._times.get(digest) for digest in digests]
            if times[0] is None and self._device:  # it is too small for the whole model
                return LatencyFit(1.0, 0.0, 0.0, 0.0, math.nan)
            if times[0] is None:
                told = "ONNX Runtime does not run it at these sizes, so that its latency is not known: say others with --shape"
                raise ModelError(f"{self._model.name}: {told}")
            fit = fit_latency(self._graph, costs, plans, times)
            if not again or (attempt and fit.error < _CLOSE):
                break
        self._times.settle()
        return fit

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

    def _sampling(self, segment: Segment) -> _Sampling | None:
        """The points of a segment, and the models to time for it; ``None`` if it makes none."""
        axes = segment.coordinates
        chosen: dict[Point, Sizes] = {}
        if len(axes) > max(_FEW):
            chosen = {(self._graph.work(segment, sizes),): sizes for sizes in self._shrinking(axes, _TOGETHER)}
            grid = WidthGrid([_of_any_kind([work for (work,) in chosen])])
        else:
            possible = [self._possible(axis) for axis in axes]
            grid = WidthGrid([_points(widths, len(axes)) for widths in possible])
            for point in grid.points():
                parts = (widths[width] for widths, width in zip(possible, point, strict=True))
                chosen[point] = {leaf: size for sizes in parts for leaf, size in sizes.items()}
        digests: dict[Point, tuple[str, str]] = {}
        for point, sizes in chosen.items():
            models = self._graph.timed(segment, sizes)
            if models is None:
                return None
            digests[point] = self._add(models[0]), self._add(models[1])
        return _Sampling(segment, axes if len(axes) <= max(_FEW) else None, grid, digests)

    def _possible(self, axis: Factor) -> dict[float, Sizes]:
        """Widths of an axis, each with widths of groups that give it."""
        if not axis.kind:
            return {float(width): {axis: width} for width in self._widths[axis]}
        below = sorted(self._graph.below(axis), key=self._factors.index)
        draws = np.random.default_rng(0).random((_SAMPLES, len(below))).tolist()
        drawn = [{leaf: _at(self._widths[leaf], share) for leaf, share in zip(below, row, strict=True)} for row in draws]
        return {float(length(axis, sizes)): sizes for sizes in (*drawn, *self._shrinking([axis], _SAMPLES))}

    def _shrinking(self, axes: Sequence[Factor], count: int) -> list[Sizes]:
        """Widths of the groups below some axes, from the least to all, each group going evenly through its own."""
        below = {leaf for axis in axes for leaf in self._graph.below(axis)}
        return [{leaf: _at(self._widths[leaf], share) for leaf in below} for share in np.linspace(0, 1, count).tolist()]

    def _weight_bytes(self, sampling: _Sampling) -> dict[Point, float]:
        """The bytes of constants of a segment at each point."""
        models = self._times.models
        return {point: constant_bytes(models[digest]) for point, (digest, _) in sampling.digests.items()}

    def _milliseconds(self, sampling: _Sampling) -> dict[Point, float] | None:
        """The time of a segment at each point, less its baseline's; ``None`` if a time is missing."""
        segments, baselines = self._timed(sampling, 0), self._timed(sampling, 1)
        if segments is None or baselines is None:
            return None
        return {point: max(ms - baselines[point], 0.0) for point, ms in segments.items()}

    def _timed(self, sampling: _Sampling, side: int) -> dict[Point, float] | None:
        """The times of the models of a segment (side 0) or of their baselines (1); ``None`` if one is missing."""
        times: dict[Point, float] = {}
        for point in sampling.grid.points():
            ms = self._times.get(sampling.digests[point][side])
            if ms is None:
                return None
            times[point] = ms
        return sampling.grid.monotone(times)


def _digest(model: ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _refuse(models: Sequence[ModelProto]) -> NoReturn:
    raise AssertionError(f"{len(models)} models of another device cannot be timed here")


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


def _dims(value: ValueInfoProto) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None for dim in dims)
