"""One model and one recipe, compiled to as many targets as are asked for: what does not depend on the target is done once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxprune.data.samples import Samples, noise_samples
from onnxprune.driver.exponents import best_exponent, drifted, small_enough
from onnxprune.driver.layer_types import IN_FLOATS, LayerTypes
from onnxprune.driver.prepared import Prepared
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import Judge, broken, exact
from onnxprune.driver.result import Predicted, Pruned
from onnxprune.driver.shared import SharedStages
from onnxprune.errors import ModelError, OptionError, TargetError
from onnxprune.ir.precision import differing_weights, with_fitted_weights
from onnxprune.ir.weights import FLOATS
from onnxprune.passes import Normalize, PruneChannels, Repair, Restore, Rotate
from onnxprune.passes.base import Fitted, Progress, silent
from onnxprune.passes.constants import tie
from onnxprune.passes.footprint import footprint
from onnxprune.runtime.engines import demand_installed

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Positions
    from onnxprune.axes.plan import Plan
    from onnxprune.data.calibration import Batches, CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.linear.rotation import Basis
    from onnxprune.options.prune import Recipe
    from onnxprune.options.targets import Target
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.observe import Observed
    from onnxprune.pruning.knapsack import Curve
    from onnxprune.verify.verdicts import Check

__all__ = ["Compiler"]

GROUP_EXPONENTS = (1.0, 1.5)
"""Of what groups are predicted to cost, before it is added; the last one where the model is too large to try."""
_EACH = 2
"""Of so many batches one is fitted on where exponents are tried,"""
_ROWS = 8192
"""with so many rows for each reader."""
_NOISE = 128
"""Samples of noise that stand in for data."""


class Compiler:
    """The passes up to the choice of widths, run once; then the rest, for each target."""

    def __init__(
        self,
        original: Model,
        recipe: Recipe,
        samples: Samples | None = None,
        stages: Stages | None = None,
        gone: Mapping[str, Positions] = MappingProxyType({}),
        file: Model | None = None,
        shared: SharedStages | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            original: the model to prune, and what the result must equal.
            recipe: how.
            samples: calibration data.
            stages: announces and times what is done.
            gone: positions that carry no weight, by group id.
            file: the user's, where ``original`` was made from it.
            shared: what compilations of the same model on the same samples have in common.
        """
        self.file = file or original
        self.original, self.recipe, self.samples = original, recipe.settled(data=samples is not None), samples
        if recipe.engines is not None:
            demand_installed(recipe.engines)
        self.stages = stages or Stages()
        self._gone, self._shared = gone, shared or SharedStages()
        self._latest: Prepared | None = None
        self._exponent: float | None = None

    def build(self, target: Target, types: LayerTypes = IN_FLOATS) -> Pruned:
        """A small model that meets a target; surgery proven, readers repaired.

        Groups that break the law are left whole, and stay so for every later target.

        Args:
            target: of latency, what remains of the model's whose layers compute in ``types``.
            types: what layers will compute in, which decides what widths save.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: the target cannot be reached; says what is reachable.
            VerificationError: the model cannot be run, so that nothing can be verified; or, normalised, it computes something
                else than the file.
        """
        while True:
            analysis, plan = self.planned(target, types)
            with self.stages("surgery", "cutting"):
                pruned = Pruned(analysis, plan, PruneChannels().run(analysis, plan), frozen=self._prepared().frozen)
            if not self.recipe.verify:
                break
            with self.stages("verification", "verifying: pruned == masked"):
                check = self._proof(analysis, plan, pruned.model)
                if check.ok:
                    pruned = replace(pruned, check=check)
                    break
                self._latest = self._prepared().without(self._broken(analysis, plan, check), target)
        return self._finished(pruned)

    def carry_out(self, plan: Plan) -> Pruned:
        """The model that a plan comes to: proven and repaired as by `build`, but no group is left whole.

        Raises:
            PlanError: the plan is for another model.
            VerificationError: the result is not the masked model; or, normalised, the model is not the file.
        """
        analysis = self._prepared().analysis
        with self.stages("surgery", "cutting"):
            pruned = Pruned(analysis, plan, PruneChannels().run(analysis, plan))
        if self.recipe.verify:
            with self.stages("verification", "verifying: pruned == masked"):
                pruned = replace(pruned, check=exact(self._proof(analysis, plan, pruned.model), self.file.name))
        return self._finished(pruned)

    def _finished(self, pruned: Pruned) -> Pruned:
        """What is written of a model that was cut: repaired, where there is something to repair it on."""
        if self.recipe.repair and (self.samples is not None or self.recipe.blind):
            with self.stages("repair", "repairing"):
                calibration = self._prepared().calibration
                pruned = self._blindly(pruned) if calibration is None else self._repaired(pruned, calibration.every)
        tied = tie(pruned.model)
        return replace(pruned, model=Restore().run(tied, self.file), params=footprint(tied).params)

    def planned(self, target: Target, types: LayerTypes = IN_FLOATS) -> tuple[Analysis, Plan]:
        """The normalised model with its groups, and a plan for a target, as by `build`.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: the target cannot be reached; says what is reachable.
        """
        prepared = self._prepared()
        plan = prepared.allocator(target, types)
        try:
            with self.stages("analysis", "allocating"):
                return prepared.analysis, plan(self._exponent_for(prepared, target, plan))
        except TargetError as error:
            if not prepared.frozen:
                raise
            failed = f"{len(prepared.frozen)} groups failed verification: {', '.join(prepared.frozen)}"
            raise TargetError(f"{error} ({failed})") from error

    def draft(self, target: Target, types: LayerTypes = IN_FLOATS) -> tuple[Model, Model]:
        """The normalised original and the model that a target comes to as by `build`, cut but neither proven nor repaired.

        Raises:
            TargetError: the target cannot be reached; says what is reachable.
        """
        analysis, plan = self.planned(target, types)
        return analysis.model, PruneChannels().run(analysis, plan)

    def rehearsed(self, target: Target) -> float | None:
        """How far outputs move on samples that nothing is fitted on, under a plan for a target; ``None`` without samples.

        It is repaired on a part of the samples and not proven, so that this takes a part of the time of `build`.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: the target cannot be reached; says what is reachable.
        """
        analysis, plan = self.planned(target)
        observed = self._prepared().observed
        if observed is None:
            return None
        original = analysis.float32
        model = self._tried(original, plan, observed) if self.recipe.repair else PruneChannels().run(original, plan)
        return drifted(model, original.model, observed.calibration.held)

    def _tried(self, original: Analysis, plan: Plan, observed: Observed) -> Model:
        """The model of a plan, repaired on a part of the samples."""
        some = list(islice(observed.calibration.fit, 0, None, _EACH))
        return _refit(original, plan, observed.bases, some, Repair(self.recipe.seed, _ROWS))[0].model

    def predicted(self, plan: Plan) -> Predicted | None:
        """The latency of a plan on the device whose table the recipe names; ``None`` where it names none."""
        prepared = self._prepared()
        if prepared.device is None:
            return None
        groups = prepared.analysis.coupling.groups
        counts = {group.factor: len(plan.keep[group.id]) for group in groups if group.id in plan.keep}
        return Predicted(prepared.device, prepared.latencies.whole, prepared.latencies.total(counts))

    def worklist(self) -> tuple[dict[str, ModelProto], dict[str, ModelProto]]:
        """What a device must time, by digest: models of layers, and the whole model under some plans.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: there is nothing to prune.
        """
        if not self.has_groups:
            raise TargetError(f"{self.original.name}: has no group that can be pruned; inspect says why")
        return self._prepared().worklist()

    def curves(self) -> tuple[Coupling, Mapping[str, Curve]]:
        """The groups, and what each is measured to cost, by its id."""
        prepared = self._prepared()
        return prepared.analysis.coupling, prepared.curves

    @property
    def has_groups(self) -> bool:
        """Whether there is anything to prune."""
        return bool(self._prepared().analysis.coupling.groups)

    def _prepared(self) -> Prepared:
        """What is known of the model without the groups that failed verification so far."""
        if self._latest is None:
            with self.stages("analysis", "finding coupling groups"):
                _check_weights(self.original)
                normal = self._shared.normal(self.original, self.file, lambda: Normalize().run(self.original))
                calibration = None if self.samples is None else normal.calibration(self.samples)
            self._latest = Prepared(self.recipe, normal, self.stages, calibration, self._gone, shared=self._shared)
        return self._latest

    @cached_property
    def _judge(self) -> Judge:
        """The file that was given."""
        return Judge(self.original, self._prepared().normal.model, self.recipe.seed)

    def _exponent_for(self, prepared: Prepared, target: Target, plan: Callable[[float], Plan]) -> float:
        """The exponent of predicted errors whose repaired model is nearest to the original on samples its repair did not see.

        It is tried once, at the first target; where the model is too large to try, the more even one is taken.
        """
        observed = prepared.observed
        if observed is None or not prepared.by_curves(target):
            return 1.0
        if self._exponent is None:
            original, calibration = prepared.analysis.float32, observed.calibration
            if not self.recipe.repair or not small_enough(prepared.analysis, calibration):
                self._exponent = GROUP_EXPONENTS[-1]
                return self._exponent
            plans = {exponent: plan(exponent) for exponent in GROUP_EXPONENTS}

            def build(exponent: float) -> Model:
                return self._tried(original, plans[exponent], observed)

            first, *others = plans.values()
            if others and all(first.equals(other) for other in others):
                self._exponent = GROUP_EXPONENTS[0]
            else:
                held, tell = calibration.held, self.stages.tell
                self._exponent = best_exponent(GROUP_EXPONENTS, build, original.model, held, tell, "target")
        return self._exponent

    def _proof(self, analysis: Analysis, plan: Plan, pruned: Model) -> Check:
        """The proof of a plan on what would be written; isolating groups must ask the same, or it finds none and never ends."""
        return self._judge.prove(analysis, plan, Restore().run(pruned, self.file))

    def _broken(self, analysis: Analysis, plan: Plan, check: Check) -> dict[str, str]:
        """The groups of a plan that break the law."""

        def holds(some: Sequence[str]) -> bool:
            part = plan.without(set(plan.keep) - set(some))
            return self._proof(analysis, part, PruneChannels().run(analysis, part)).ok

        return broken(analysis.model.name, list(plan.keep), holds, check)

    def _repaired(self, pruned: Pruned, feeds: CalibrationFeeds) -> Pruned:
        """The pruned model with its readers re-solved, in float32, and written in the types they had."""
        observed = self._prepared().observed
        bases = {} if observed is None else observed.bases
        repair = Repair(self.recipe.seed)
        fitted, moved = _refit(pruned.analysis.float32, pruned.plan, bases, feeds, repair, self.stages.tell)
        return replace(pruned, model=with_fitted_weights(pruned.model, fitted.model, moved), repairs=fitted.repairs)

    def _blindly(self, pruned: Pruned) -> Pruned:
        """The pruned model repaired on noise, if that brings it nearer to the original on other noise.

        What a reader needs is how its inputs go together, and most of that is in the weights before it: noise shows it.
        """
        analysis, inputs = pruned.analysis, self.original.inputs
        for value in inputs:
            if value.type.tensor_type.elem_type not in FLOATS:
                raise OptionError(
                    f"--calib noise: cannot stand in for input {value.name!r}, which is no floating-point data: give samples"
                )
        known = {value.name: shape for value in inputs if (shape := analysis.shapes.shapes[value.name]) is not None}
        seeds = (self.recipe.seed, self.recipe.seed + _NOISE)
        drawn = (noise_samples(inputs, count=_NOISE, seed=seed, shapes=known, natural=True) for seed in seeds)
        fitting, judging = (analysis.calibration(samples) for samples in drawn)
        repaired = self._repaired(pruned, fitting.every)
        before, after = (drifted(one.model, analysis.float32.model, judging.held) for one in (pruned, repaired))
        return repaired if after < before else pruned


def _refit(
    original: Analysis, plan: Plan, bases: Mapping[str, Basis], feeds: Batches, repair: Repair, tell: Progress = silent
) -> tuple[Fitted, set[str]]:
    """A pruned model in float32 with its readers re-solved, and the constants that are not those of the original, cut.

    Args:
        original: in float32.
        plan: what remains.
        bases: in which groups are cut, by group id.
        feeds: what is fitted on.
        repair: how it is fitted.
        tell: is told which reader is solved.
    """
    rotated = replace(original, model=Rotate().run(original.model, bases, plan))
    cut = PruneChannels().run(rotated, plan)
    fitted = repair.run(cut, rotated, plan, feeds, tell)
    return fitted, differing_weights(rotated.model, original.model) | differing_weights(fitted.model, cut)


def _check_weights(model: Model) -> None:
    if not model.has_floats:
        integers = any(weight.is_matrix for weight in model.weights.values())
        way = "prune the model before it is converted to integers" if integers else "a model without layers has no channels"
        raise ModelError(f"{model.name}: has no floating-point weights to rank channels by: {way}")
