"""What planning needs to know of a model, whatever the target is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.driver.layer_types import IN_FLOATS, LayerTypes
from onnxprune.driver.shared import SharedStages
from onnxprune.errors import ModelError
from onnxprune.passes import Allocate, Couple, Observe, ScoreChannels, Sensitivity
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.allocation import widths
from onnxprune.runtime.engines import open_engine

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.axes.plan import Plan
    from onnxprune.data.calibration import Calibration
    from onnxprune.driver.progress import Stages
    from onnxprune.latency.device_table import DeviceTable
    from onnxprune.latency.model import LatencyModel
    from onnxprune.latency.profiler import LatencyProfiler
    from onnxprune.options.prune import Recipe
    from onnxprune.options.targets import Target
    from onnxprune.passes.analysis import Normalized
    from onnxprune.passes.observe import Observed
    from onnxprune.pruning.criteria import Scores
    from onnxprune.pruning.knapsack import Curve
    from onnxprune.pruning.width_search import TargetPrices
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["Prepared"]


@dataclass(frozen=True)
class Prepared:
    """A model with certain groups left whole; what is known of it is worked out once, when it is first asked for.

    Attributes:
        recipe: how to prune it.
        normal: the normalised model.
        stages: announces and times what is worked out.
        calibration: samples; ``None`` where there are none.
        gone: positions that carry no weight, by group id.
        frozen: groups that stay whole, by id, with the reason.
        known: curves that were measured before groups were frozen.
        shared: what compilations of the same model on the same samples have in common, as long as no group is frozen.
    """

    recipe: Recipe
    normal: Normalized
    stages: Stages
    calibration: Calibration | None = None
    gone: Mapping[str, Positions] = field(default_factory=dict)
    frozen: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Curve] = field(default_factory=dict)
    shared: SharedStages = field(default_factory=SharedStages)

    def without(self, groups: Mapping[str, str], target: Target) -> Prepared:
        """The same model with more groups left whole; what planning for ``target`` measured need not be measured again.

        Args:
            groups: ids, with the reason.
            target: that a plan was made for.
        """
        known = self.curves if self.by_curves(target) else self.known
        return replace(self, frozen={**self.frozen, **groups}, known=known, shared=SharedStages())

    def by_curves(self, target: Target) -> bool:
        """Whether a target is shared out by what each group costs."""
        return self.recipe.scope == "sensitivity" and target.metric != "channels"

    def allocator(self, target: Target, types: LayerTypes = IN_FLOATS) -> Callable[[float], Plan]:
        """A function from an exponent of predicted errors to the plan for a target; what that needs is worked out here.

        Args:
            target: of a latency, of the model whose layers compute in ``types``.
            types: what layers will compute in.
        """
        scores, curves = self.scores, self.curves if self.by_curves(target) else {}
        latencies = self.latencies_in(types) if target.timed else None

        def plan(exponent: float) -> Plan:
            step = Allocate(target, self.recipe.scope, self.recipe.align, exponent, self.recipe.own)
            return step.run(self.analysis, scores, curves=curves, latencies=latencies, gone=self.gone)

        return plan

    @cached_property
    def analysis(self) -> Analysis:
        """The groups."""
        with self.stages("analysis", "finding coupling groups"):
            recipe, normal = self.recipe, self.normal
            step = Couple(recipe.protect, recipe.allow_inexact, recipe.only)
            coupling = self.shared.coupling(recipe, lambda: step.run(normal, self.frozen).coupling)
            return Analysis(normal.model, normal.shapes, normal.source, coupling)

    @cached_property
    def observed(self) -> Observed | None:
        """What samples show; ``None`` where there are none, or no group."""
        original, recipe, calibration = self.analysis.float32, self.recipe, self.calibration
        if calibration is None or not original.coupling.groups:
            return None
        step = Observe(recipe.repair, recipe.seed)

        def run() -> Observed:
            with self._engine() as engine:
                return step.run(original, calibration, engine, self.stages.tell)

        with self.stages("scoring", "gathering statistics of what the layers read"):
            return self.shared.observed(recipe, original, calibration, run)

    def _engine(self) -> AbstractContextManager[Pool | None]:
        """Who shares in the work on samples, opened."""
        options = self.recipe.engines
        return nullcontext() if options is None else open_engine(options)

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """The importance of each position, by group id."""
        recipe, observed = self.recipe, self.observed
        with self.stages("scoring", f"scoring by {recipe.criterion}"):
            step, original = ScoreChannels(recipe.criterion, recipe.seed), self.analysis.float32
            return self.shared.scores(recipe, original.coupling, lambda: step.run(original, observed, self.gone))

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """What each group costs, by its id, measured on samples; empty where there are none, or no group."""
        scores, observed = self.scores, self.observed
        if observed is None or {group.id for group in self.analysis.coupling.groups} <= self.known.keys():
            return self.known
        with self.stages("sensitivity", "measuring what each group costs"):
            step, original, tell = Sensitivity(self.recipe.repair), self.analysis.float32, self.stages.tell
            return self.shared.curves(
                self.recipe, original.coupling, lambda: step.run(original, scores, observed, self.known, tell)
            )

    @cached_property
    def latencies(self) -> LatencyModel:
        """What the model takes under any plan, by timing its layers here, or by the table of another device."""
        with self.stages("latency table", "timing layers" if self.device is None else "reading the table of the device"):
            profiler, wanted = self._profiler()
            return profiler.profile(wanted)

    @cached_property
    def _int8_latencies(self) -> LatencyModel | None:
        """The same in int8; ``None`` where ONNX Runtime does not run all of it so."""
        from onnxprune.latency.int8_form import in_int8

        with self.stages("latency table", "timing layers in int8"):
            profiler, wanted = self._profiler(in_int8)
            try:
                return profiler.profile(wanted)
            except ModelError:
                return None

    def latencies_in(self, types: LayerTypes) -> TargetPrices:
        """As `latencies`, where layers compute in some types, as far as it is known what they take in int8."""
        ints = self._int8_latencies if types.int8 else None
        if ints is None:
            return self.latencies
        return self.latencies.blended(ints, types.is_int8) if types.floats else ints

    @cached_property
    def device(self) -> DeviceTable | None:
        """The device that latency is planned for; ``None`` for this machine."""
        from onnxprune.latency.device_table import DeviceTable

        return DeviceTable.read(self.recipe.device_table) if self.recipe.device_table else None

    def worklist(self) -> tuple[dict[str, ModelProto], dict[str, ModelProto]]:
        """What a device must time, by digest: models of layers, and the whole model under some plans."""
        profiler, wanted = self._profiler()
        return profiler.worklist(wanted)

    def _profiler(
        self, form: Callable[[ModelProto], ModelProto] | None = None
    ) -> tuple[LatencyProfiler, dict[Factor, list[int]]]:
        """What times the layers, in a form of `LatencyProfiler`, and the widths at which that is needed."""
        from onnxprune.latency.profiler import LatencyProfiler

        analysis, align = self.analysis, self.recipe.align.suited(timed=True)
        coupling = analysis.coupling
        model, shapes, device = analysis.model, analysis.shapes, self.device
        progress = self._timing if device is None else None  # nothing is timed
        profiler = LatencyProfiler(model, coupling, shapes, align=align.channels, progress=progress, device=device, form=form)
        return profiler, {group.factor: widths(group, coupling, align) for group in coupling.groups}

    def _timing(self, what: str, done: int, steps: int) -> None:
        self.stages.tell(f"{what} ({done} of {steps})" if steps else what)
