"""The compiler, assembled: the only place that knows the default pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import optional_samples, sized
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.costs import outcome
from onnxprune.driver.interface import interface
from onnxprune.driver.judgement import Judgement, Jury
from onnxprune.driver.lossless import Exact, remove
from onnxprune.driver.named import check_protected
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import demand
from onnxprune.driver.report import GroupReport, Report
from onnxprune.driver.result import ModelResult, Predicted, Pruned
from onnxprune.driver.search import DropSearch, at_latency, within_drop
from onnxprune.driver.shared import SharedStages
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.folders import model_in
from onnxprune.ir.history import begin, planned, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.parameters import parameters
from onnxprune.ir.unchanged import digest_of, watched
from onnxprune.options.gates import Gates, parse_drop
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.passes import Couple, Normalize
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.cost import layer_costs
from onnxprune.verify.metrics import Evaluation

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples, SamplesLike
    from onnxprune.passes.base import Progress

__all__ = [
    "Result",
    "analyze",
    "analyzed",
    "compiling",
    "describe",
    "make_plan",
    "prune",
    "samples_of",
    "sensitivity",
]


@dataclass(frozen=True, repr=False)
class Result(ModelResult):
    """A pruned model.

    Attributes:
        report: what happened.
        plan: which positions remain.
        coupling: the groups that the plan is about.
    """

    report: Report
    plan: Plan
    coupling: Coupling


def analyze(
    source: ModelSource, *, protect: Sequence[str] = (), allow_inexact: bool = False, shape: Sequence[str] = ()
) -> Analysis:
    """Find what may be pruned in a model, and why the rest may not. No weight is changed.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``.
        protect: globs over node and tensor names that stay as they are; a text is one.
        allow_inexact: offer groups that a normalisation or statistic runs over.
        shape: sizes of inputs, as ``image=?x3x224x224`` or ``height=224``.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: sizes do not fit the inputs, or a glob names nothing.
    """
    model = Model.of(source, shape)
    protect = (protect,) if isinstance(protect, str) else protect
    check_protected(protect, model)
    return analyzed(model, protect, allow_inexact=allow_inexact)


def analyzed(model: ModelSource, protect: Sequence[str] = (), *, allow_inexact: bool = False) -> Analysis:
    """As `analyze`, of a model in the making, in which what globs name may be gone."""
    return Couple(tuple(protect), allow_inexact).run(Normalize().run(Model.of(model)))


@watched()
def make_plan(
    source: ModelSource, recipe: Recipe | str | None = None, *, progress: Progress | None = None
) -> tuple[Plan, Analysis]:
    """Decide what to remove, without removing it.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        OptionError: the recipe is lossless: a plan says what goes, not what takes over.
        TargetError: the target cannot be reached.
    """
    recipe = Recipe.of(recipe)
    original = Model.of(source, recipe.shape)
    if recipe.lossless:
        raise OptionError("lossless: a plan does not say what takes over removed positions; use prune")
    check_protected(recipe.protect, original)
    opened = samples_of(recipe, original)
    original = sized(original, opened)
    compiler = Compiler(original, recipe, Jury.of(Gates(), original, opened).learnt, Stages(progress))
    analysis, plan = compiler.planned(recipe.target)
    return _signed(plan, source, recipe, opened), analysis


@watched()
def prune(
    source: ModelSource,
    recipe: Recipe | str | None = None,
    *,
    samples: SamplesLike | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
    shared: SharedStages | None = None,
) -> Result:
    """Make a physically smaller model that meets the recipe's target, and prove the surgery.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: target, criterion, scope, alignment, ...; a text is the target.
        samples: calibration data, in any form of `open_samples`; the recipe's if there is none here. Without any, outputs are
            compared on seeded noise and nothing is repaired.
        agreement: whether to compare outputs with the original's where no gate asks for it.
        progress: told what begins.
        shared: what compilations of the same model on the same samples have in common; the result is the same without.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        TargetError: the target cannot be reached; says what is reachable. Or nothing can go without loss.
        VerificationError: the model cannot be run, so that nothing can be verified; or an output is not tested that must be.
    """
    recipe, stages = Recipe.of(recipe), Stages(progress)
    if isinstance(samples, str):
        recipe, samples = dataclasses.replace(recipe, calib=samples), None
    original = begin(Model.of(source, recipe.shape), source, _told(recipe))
    check_protected(recipe.protect, original)
    opened = samples_of(recipe, original) if samples is None else optional_samples(samples, original.inputs, recipe.preprocess)
    jury = Jury.of(recipe.gates, sized(original, opened), opened, recipe.preprocess).sized()
    original = jury.original
    made = _made(recipe, jury, stages, shared).remembered()
    if recipe.require_proof:
        for proof in (made.pruned, *([made.exact.pruned] if made.exact else [])):
            demand(proof.check, original.name)
    with stages("agreement", "comparing outputs with the original's") if agreement or jury.gates.asked else nullcontext():
        exact = recipe.only_exact and made.pruned.check is not None
        score = made.search.score if made.search else None
        judged = jury.judge(made.pruned.model, compare=agreement, seed=recipe.seed, score=score, exact=exact)
    report = _report(original, recipe, made, judged, samples=opened is not None)
    told = [made.predicted.note if made.predicted else "", opened.notice if opened else "", judged.note]
    notes = (*report.notes, *filter(None, told))
    report = dataclasses.replace(report, notes=notes, seconds=dict(stages.seconds))
    plan = _signed(made.pruned.plan, source, recipe, opened)
    return Result(report, plan, made.pruned.analysis.coupling, compiled=made.pruned.model)


@dataclass(frozen=True, slots=True)
class _Made:
    """The model that a recipe comes to.

    Attributes:
        pruned: the model.
        exact: what went without loss before; ``None`` if that was not asked for.
        search: how the model was searched for; ``None`` if it was not.
        measured: the fraction of the original's that was measured, by metric, where the target is one.
        predicted: latency on another device, where it was planned for one.
    """

    pruned: Pruned
    exact: Exact | None = None
    search: DropSearch | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    predicted: Predicted | None = None

    def remembered(self) -> _Made:
        """The same, with a model that remembers the plan, if there is one."""
        if not self.pruned.plan.keep:
            return self
        model = planned(self.pruned.model, self.pruned.plan.digest)
        return dataclasses.replace(self, pruned=dataclasses.replace(self.pruned, model=model))


def _made(recipe: Recipe, jury: Jury, stages: Stages, shared: SharedStages | None) -> _Made:
    """The model that the recipe comes to, after what goes without loss."""
    compiler, exact = compiling(recipe, jury.original, jury.learnt, stages, shared)
    if exact and recipe.only_exact:
        return _Made(exact.pruned, exact)
    return dataclasses.replace(_reduced(recipe, jury, compiler), exact=exact)


def compiling(
    recipe: Recipe, original: Model, samples: Samples | None, stages: Stages, shared: SharedStages | None = None
) -> tuple[Compiler, Exact | None]:
    """What prunes a model by a recipe, and what went without loss before; ``None`` where that is not asked for.

    Args:
        recipe: how.
        original: the model.
        samples: calibration data.
        stages: announces and times what is done.
        shared: what compilations of the same model on the same samples have in common; unless something goes without loss first.

    Raises:
        TargetError: nothing can go without loss, and nothing else is asked for.
    """
    if not recipe.lossless:
        return Compiler(original, recipe, samples, stages, shared=shared), None
    with stages("lossless", "looking for what is dead, constant or duplicated"):
        exact = remove(original, recipe)
    return Compiler(exact.pruned.analysis.model, recipe, samples, stages, exact.removal.gone, original), exact


def _reduced(recipe: Recipe, jury: Jury, compiler: Compiler) -> _Made:
    """The model that meets a target, or the smallest one that is good enough."""
    target = recipe.target
    if recipe.max_drop:
        assert jury.judges is not None  # noqa: S101 - the recipe names samples where it names a drop
        evaluation = Evaluation(jury.original, jury.judges, recipe.metric)
        found = within_drop(compiler, evaluation, parse_drop(recipe.max_drop), target)
        return _Made(found.pruned, search=found, predicted=compiler.predicted(found.pruned.plan))
    if recipe.device_table:
        pruned = compiler.build(target)
        predicted = compiler.predicted(pruned.plan)
        return _Made(pruned, measured={target.metric: predicted.share} if predicted else {}, predicted=predicted)
    if target.timed:
        nearest, measured = at_latency(compiler, target)
        return _Made(compiler.build(nearest), measured={target.metric: measured})
    return _Made(compiler.build(target))


@watched()
def sensitivity(
    source: ModelSource,
    samples: SamplesLike,
    recipe: Recipe | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What each group costs, measured: the divergence of the outputs when it alone is cut and repaired, as data.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        OptionError: the samples do not fit the model.
        TargetError: the model has no group.
    """
    recipe = dataclasses.replace(recipe or Recipe(), scope="sensitivity", target=Target("macs", 1.0))
    original = Model.of(source, recipe.shape)
    check_protected(recipe.protect, original)
    opened = optional_samples(samples, original.inputs, recipe.preprocess)
    coupling, curves = Compiler(sized(original, opened), recipe, opened, Stages(progress)).curves()
    if not coupling.groups:
        raise TargetError(f"{original.name}: has no group that can be pruned; inspect says why")
    groups = []
    for group in coupling.groups:
        curve = curves[group.id]
        measured = [{"kept": kept, "divergence": error} for kept, error in sorted(curve.measured.items(), reverse=True)]
        groups.append(
            {
                "id": group.id,
                "kind": group.kind,
                "size": group.size,
                "measured": measured,
                "predicted": curve.error.tolist(),
                "order": curve.order.tolist(),
            }
        )
    return {"model": original.name, "criterion": recipe.settled(data=True).criterion, "repaired": recipe.repair, "groups": groups}


def samples_of(recipe: Recipe, model: Model) -> Samples | None:
    """The samples that a recipe names; ``None`` where it names none, or noise."""
    return optional_samples("" if recipe.blind else recipe.calib, model.inputs, recipe.preprocess)


_DECIDING = frozenset({
    "target", "criterion", "scope", "align", "protect", "only", "allow_inexact", "layers", "lossless", "max_drop", "calib",
    "preprocess", "repair", "seed", "shape", "device_table",
})  # fmt: skip
"""Options that decide what is cut, and how it is repaired: `plan` has most of them, too."""


def _told(recipe: Recipe) -> str:
    """How a model is pruned, in its history: a plan says the same, so that whoever carries it out writes the same file."""
    return recipe_text("prune", recipe, only=_DECIDING)


def _signed(chosen: Plan, source: ModelSource, recipe: Recipe, samples: Samples | None) -> Plan:
    """The plan, with the file and the samples that it was made for."""
    made_with = "" if samples is None and not recipe.blind else Path(recipe.calib).name or "samples in memory"
    chosen = dataclasses.replace(chosen, samples=made_with, recipe=_told(recipe))
    if not isinstance(source, str | Path):
        return chosen
    return dataclasses.replace(chosen, file=model_in(Path(source)).name, sha256=digest_of(source))


def _report(original: Model, recipe: Recipe, made: _Made, judged: Judgement, *, samples: bool) -> Report:
    """The report, except for what is measured on the result."""
    pruned, exact, search = made.pruned, made.exact, made.search
    plan, coupling = pruned.plan, pruned.analysis.coupling
    before, after, obtained = outcome(pruned)
    return Report(
        model=original.name,
        requested="lossless" if recipe.only_exact else str(search.target if search else recipe.target),
        judgement=judged,
        max_drop=recipe.max_drop,
        score=judged.score,
        drift=judged.drift,
        tried=search.tried if search else (),
        obtained={**obtained, **made.measured},
        before=before,
        after=after,
        groups=tuple(
            GroupReport(g.id, g.size, len(plan.keep.get(g.id, range(g.size))), g.exact, len(g.members)) for g in coupling.groups
        ),
        refusals=tuple(refusal.to_dict() for refusal in coupling.refusals),
        verification=pruned.check,
        repairs=pruned.repairs,
        frozen=dict(pruned.frozen),
        notes=tuple(pruned.notes(recipe, samples=samples)),
        lossless=exact.to_dict(plan) if exact else None,
        predicted=made.predicted.to_dict() if made.predicted else None,
    )


def describe(analysis: Analysis) -> dict[str, Any]:
    """Everything `inspect` shows, as data: costs, groups, refusals, layers."""
    coupling, batch, counted = analysis.coupling, analysis.shapes.batch, parameters(analysis.model)
    layers = []
    for node in coupling.nodes:
        macs, params = layer_costs(analysis.model, node, batch, counted)
        if macs or params:
            layers.append(
                {"node": node.view.name, "op": node.view.op, "macs": macs, "params": params, "axes": str(node.equation)}
            )
    groups = [
        {
            "id": group.id,
            "size": group.size,
            "exact": group.exact,
            "kind": group.kind,
            "members": [{"value": m.value, "axis": m.axis, "op": m.op} for m in group.members],
        }
        for group in coupling.groups
    ]
    cost = analysis.costs.original()
    return {
        "model": analysis.model.name,
        **interface(analysis.source, analysis.shapes.shapes),
        "cost": dataclasses.asdict(cost),
        "groups": groups,
        "refusals": [refusal.to_dict() for refusal in coupling.refusals],
        "layers": layers,
    }
