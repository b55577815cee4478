"""The compiler, assembled: the only place that knows the default pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples, optional_samples
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.lossless import Exact, remove
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import Judge, demand
from onnxprune.driver.report import GroupReport, Report
from onnxprune.driver.result import ModelResult, Pruned
from onnxprune.driver.search import DropSearch, at_latency, within_drop
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import digest_of, watched
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.passes import Couple, MaskChannels, Normalize, PruneChannels, Restore
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.cost import COST_METRICS, Cost, layer_costs
from onnxprune.verify.drift import measure_drift
from onnxprune.verify.metrics import Evaluation, parse_drop
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.passes.base import Progress

__all__ = [
    "Result",
    "analyze",
    "apply",
    "carry_out",
    "check",
    "describe",
    "foreign",
    "make_plan",
    "price",
    "prune",
    "sensitivity",
    "unpaired",
]


@dataclass(frozen=True)
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


def analyze(source: ModelSource, *, protect: Sequence[str] = (), allow_inexact: bool = False) -> Analysis:
    """Find what may be pruned in a model, and why the rest may not. No weight is changed.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``.
        protect: globs over node and tensor names that stay as they are.
        allow_inexact: offer groups that a normalisation or statistic runs over.

    Raises:
        ModelError: the source is not a model that can be read.
    """
    return Couple(tuple(protect), allow_inexact).run(Normalize().run(Model.of(source)))


@watched()
def make_plan(source: ModelSource, recipe: Recipe | None = None, *, progress: Progress | None = None) -> tuple[Plan, Analysis]:
    """Decide what to remove, without removing it.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        OptionError: the recipe is lossless: a plan says what goes, not what takes over.
        TargetError: the target cannot be reached.
    """
    recipe, original = recipe or Recipe(), Model.of(source)
    if recipe.lossless:
        raise OptionError("lossless: a plan does not say what takes over removed positions; use prune")
    compiler = Compiler(original, recipe, _samples(recipe, original), Stages(progress))
    analysis, plan = compiler.planned(recipe.target)
    return _signed(plan, source), analysis


@watched()
def prune(
    source: ModelSource,
    recipe: Recipe | None = None,
    *,
    samples: str | Path | Mapping[str, Any] | Samples | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Make a physically smaller model that meets the recipe's target, and prove the surgery.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: target, criterion, scope, alignment, ...
        samples: calibration data, in any form of `open_samples`; the recipe's if there is none here. Without any, outputs are
            compared on seeded noise and nothing is repaired.
        agreement: whether to compare outputs with the original's at all.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        TargetError: the target cannot be reached; says what is reachable. Or nothing can go without loss.
        VerificationError: the model cannot be run, so that nothing can be verified; or an output is not tested that must be.
    """
    recipe, stages, original = recipe or Recipe(), Stages(progress), Model.of(source)
    if isinstance(samples, str):
        recipe, samples = dataclasses.replace(recipe, calib=samples), None
    opened = _samples(recipe, original) if samples is None else optional_samples(samples, original.inputs, recipe.preprocess)
    made = _made(original, recipe, opened, stages)
    if recipe.require_proof:
        for proof in (made.pruned, *([made.exact.pruned] if made.exact else [])):
            demand(proof.check, original.name)
    drift = None
    if agreement:
        with stages("agreement", "comparing outputs with the original's"):
            drift = measure_drift(made.pruned.model, original, opened, seed=recipe.seed)
    report = _report(original, recipe, made)
    notes = (*report.notes, *([opened.notice] if opened and opened.notice else []))
    report = dataclasses.replace(report, drift=drift, notes=notes, seconds=dict(stages.seconds))
    plan = _signed(made.pruned.plan, source)
    return Result(report, plan, made.pruned.analysis.coupling, compiled=made.pruned.model)


@dataclass(frozen=True, slots=True)
class _Made:
    """The model that a recipe comes to.

    Attributes:
        pruned: the model.
        exact: what went without loss before; ``None`` if that was not asked for.
        search: how the model was searched for; ``None`` if it was not.
        measured: the fraction of the original's that was measured, by metric, where the target is one.
    """

    pruned: Pruned
    exact: Exact | None = None
    search: DropSearch | None = None
    measured: Mapping[str, float] = field(default_factory=dict)


def _made(original: Model, recipe: Recipe, samples: Samples | None, stages: Stages) -> _Made:
    """The model that the recipe comes to, after what goes without loss."""
    if not recipe.lossless:
        return _reduced(original, recipe, Compiler(original, recipe, samples, stages))
    with stages("lossless", "looking for what is dead, constant or duplicated"):
        exact = remove(original, recipe)
    if recipe.only_exact:
        return _Made(exact.pruned, exact)
    rest = exact.remaining(recipe)
    compiler = Compiler(exact.pruned.analysis.model, rest, samples, stages, exact.removal.gone, original)
    return dataclasses.replace(_reduced(original, rest, compiler), exact=exact)


def _reduced(original: Model, recipe: Recipe, compiler: Compiler) -> _Made:
    """The model that meets a target, or the smallest one that is good enough."""
    target = recipe.target
    if recipe.max_drop:
        judged = open_samples(recipe.eval, original.inputs, option="--eval", preprocess=recipe.preprocess)
        evaluation = Evaluation(original, judged, recipe.metric)
        found = within_drop(compiler, evaluation, parse_drop(recipe.max_drop), target)
        return _Made(found.pruned, search=found)
    if target.timed:
        nearest, measured = at_latency(compiler, target)
        return _Made(compiler.build(nearest), measured={target.metric: measured})
    return _Made(compiler.build(target))


@watched()
def sensitivity(
    source: ModelSource,
    samples: str | Path | Mapping[str, Any] | Samples,
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
    original = Model.of(source)
    opened = optional_samples(samples, original.inputs, recipe.preprocess)
    coupling, curves = Compiler(original, recipe, opened, Stages(progress)).curves()
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


def price(analysis: Analysis, plan: Plan) -> tuple[Cost, Cost, dict[str, float]]:
    """What a model costs before and after a plan, and the fraction of each metric that remains."""
    groups = analysis.coupling.groups
    counts = {group.factor: len(plan.keep[group.id]) for group in groups if group.id in plan.keep}
    before, after = analysis.costs.cost({}), analysis.costs.cost(counts)
    obtained = {metric: getattr(after, metric) / max(getattr(before, metric), 1) for metric in COST_METRICS}
    positions = sum(group.size for group in groups)
    obtained["channels"] = sum(counts.get(g.factor, g.size) for g in groups) / positions if positions else 1.0
    return before, after, obtained


def foreign(source: ModelSource, chosen: Plan) -> str:
    """What to tell a user who applies a plan to another file than it was made for; empty if it is that file.

    It is no error: a plan for one training run fits the next, as long as every group has as many positions.
    """
    if not chosen.sha256 or not isinstance(source, str | Path) or digest_of(source) == chosen.sha256:
        return ""
    return f"{source} is not the file that the plan was made for ({chosen.file}, sha256 {chosen.sha256[:12]}...); the groups fit"


def unpaired(pruned: ModelSource, chosen: Plan) -> str:
    """What to tell a user whose pruned model was not written with the plan, as after a kill between both; empty if it was.

    It is no error: a pruned model may have been trained since.
    """
    if not chosen.pruned or not isinstance(pruned, str | Path) or digest_of(pruned) == chosen.pruned:
        return ""
    return f"{pruned} is not the file that was written with the plan (sha256 {chosen.pruned[:12]}...), or was changed since"


def apply(source: ModelSource, chosen: Plan, *, masked: bool = False) -> Model:
    """Carry out a plan: the pruned model, or the original with zeros at the removed positions; see also `foreign`.

    Nothing is proven; see `carry_out`.

    Raises:
        ModelError: the source is not a model that can be read.
        PlanError: the plan is for another model.
    """
    original = Model.of(source)
    return _applied(original, analyze(original, allow_inexact=True), chosen, masked=masked)


@watched()
def carry_out(source: ModelSource, chosen: Plan, *, masked: bool = False) -> tuple[Model, Check]:
    """`apply`, and the proof that the result computes what the masked original computes.

    Raises:
        ModelError: the source is not a model that can be read.
        PlanError: the plan is for another model.
        VerificationError: normalised, the model computes something else, whatever the plan.
    """
    original = Model.of(source)
    found = analyze(original, allow_inexact=True)
    result = _applied(original, found, chosen, masked=masked)
    return result, Judge(original, found.model).prove(found, chosen, result, masked=masked)


def _applied(original: Model, found: Analysis, chosen: Plan, *, masked: bool) -> Model:
    step = MaskChannels() if masked else PruneChannels()
    return Restore().run(step.run(found, chosen), original)


def check(original: ModelSource, pruned: ModelSource, chosen: Plan, *, seed: int = 0) -> Check:
    """Whether a pruned model computes what the masked original computes, and keeps its interface.

    Raises:
        ModelError: one of them is not a model that can be read.
        PlanError: the plan is for another model.
    """
    found = analyze(original, allow_inexact=True)
    small = Model.of(pruned)
    for side in ("input", "output"):
        mine, theirs = ({v.name: v.type for v in getattr(model.graph, side)} for model in (small, found.model))
        for name, kind in theirs.items():
            if mine.get(name) != kind:
                return Check(ok=False, error=float("inf"), text=f"graph {side} {name!r} is not the original's")
    return Judge(Model.of(original), found.model, seed).prove(found, chosen, small)


def _samples(recipe: Recipe, model: Model) -> Samples | None:
    """The samples that a recipe names; ``None`` where it names none, or noise."""
    return optional_samples("" if recipe.blind else recipe.calib, model.inputs, recipe.preprocess)


def _signed(chosen: Plan, source: ModelSource) -> Plan:
    """The plan, with the file it was made for."""
    if not isinstance(source, str | Path):
        return chosen
    return dataclasses.replace(chosen, file=Path(source).name, sha256=digest_of(source))


def _report(original: Model, recipe: Recipe, made: _Made) -> Report:
    """The report, except for what is measured on the result."""
    pruned, exact, search = made.pruned, made.exact, made.search
    plan, coupling = pruned.plan, pruned.analysis.coupling
    before, after, obtained = price(pruned.analysis, plan)
    if exact:
        before, obtained = exact.before, exact.against(after, obtained)
    return Report(
        model=original.name,
        requested="lossless" if recipe.only_exact else str(search.target if search else recipe.target),
        score=search.score if search else None,
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
        notes=tuple(_notes(recipe, pruned)),
        lossless=exact.to_dict(plan) if exact else None,
    )


def _notes(recipe: Recipe, pruned: Pruned) -> Iterator[str]:
    groups, frozen = pruned.analysis.coupling.groups, pruned.frozen
    if frozen:
        yield f"left whole, because they failed verification: {len(frozen)} of {len(groups) + len(frozen)} groups"
    if any(not group.exact and group.id in pruned.plan.keep for group in groups):
        yield "inexact groups were pruned: equality with the masked model was proven for the exact ones only"
    if recipe.blind and recipe.repair:
        if pruned.repairs:
            yield "repaired on noise, not on data: samples repair better"
        else:
            yield "repair on noise did not help, and was left out"


def describe(analysis: Analysis) -> dict[str, Any]:
    """Everything `inspect` shows, as data: costs, groups, refusals, layers."""
    coupling, batch = analysis.coupling, analysis.shapes.batch
    layers = []
    for node in coupling.nodes:
        macs, params = layer_costs(analysis.model, node, batch)
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
    cost = analysis.costs.cost({})
    return {
        "model": analysis.model.name,
        "opset": analysis.model.opset,
        "cost": dataclasses.asdict(cost),
        "groups": groups,
        "refusals": [refusal.to_dict() for refusal in coupling.refusals],
        "layers": layers,
    }
