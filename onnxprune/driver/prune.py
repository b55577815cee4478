"""The compiler, assembled: the only place that knows the default pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.plan import Plan
from onnxprune.data import samples as calibrate
from onnxprune.driver import lossless, search
from onnxprune.driver.compiler import Built, Compiler, Progress, Stages, kept_by
from onnxprune.driver.report import GroupReport, Report
from onnxprune.driver.result import Written
from onnxprune.errors import OptionError
from onnxprune.ir import files
from onnxprune.ir.model import Model, Source
from onnxprune.options.prune import Recipe, Target
from onnxprune.passes import Couple, Facts, MaskChannels, Normalize, Pipeline, PruneChannels
from onnxprune.passes.base import need
from onnxprune.pruning.cost import METRICS, Cost, CostModel
from onnxprune.shapes.probes import Shapes
from onnxprune.verify import law
from onnxprune.verify.metrics import Evaluation, parse_drop

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples

__all__ = [
    "Analysis",
    "Result",
    "analyze",
    "apply",
    "check",
    "describe",
    "foreign",
    "make_plan",
    "price",
    "prune",
    "sensitivity",
]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A normalised model and what may be pruned in it."""

    model: Model
    shapes: Shapes
    coupling: Coupling


@dataclass(frozen=True)
class Result(Written):
    """A pruned model.

    Attributes:
        report: what happened.
        plan: which positions remain.
        coupling: the groups that the plan is about.
    """

    report: Report
    plan: Plan
    coupling: Coupling


def analyze(source: Source, *, protect: Sequence[str] = (), allow_inexact: bool = False) -> Analysis:
    """Find what may be pruned in a model, and why the rest may not. No weight is changed.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``.
        protect: globs over node and tensor names that stay as they are.
        allow_inexact: offer groups that a normalisation or statistic runs over.

    Raises:
        ModelError: the source is not a model that can be read.
    """
    steps = Pipeline([Normalize(), Couple(tuple(protect), allow_inexact)])
    model, facts = steps.run(Model.of(source))
    return Analysis(model, need(facts.shapes, "shapes"), need(facts.coupling, "coupling"))


def make_plan(source: Source, recipe: Recipe | None = None, *, progress: Progress | None = None) -> tuple[Plan, Analysis]:
    """Decide what to remove, without removing it.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        OptionError: the recipe is lossless: a plan says what goes, not what takes over.
        TargetError: the target cannot be reached.
    """
    recipe, original = recipe or Recipe(), Model.of(source)
    if recipe.lossless:
        raise OptionError("lossless: a plan does not say what takes over removed positions; use prune")
    compiler = Compiler(original, recipe, _given(recipe, original), Stages(progress))
    model, facts = compiler.planned(recipe.target)
    analysis = Analysis(model, need(facts.shapes, "shapes"), need(facts.coupling, "coupling"))
    return _signed(need(facts.plan, "plan"), source), analysis


def prune(
    source: Source,
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
        VerificationError: the model cannot be run, so that nothing can be verified.
    """
    recipe = recipe or Recipe()
    stage = Stages(progress)
    original = Model.of(source)
    if isinstance(samples, str):
        recipe, samples = dataclasses.replace(recipe, calib=samples), None
    given = _given(recipe, original) if samples is None else calibrate.given(samples, original.inputs, recipe.preprocess)
    first = None
    if recipe.lossless:
        with stage("lossless", "looking for what is dead, constant or duplicated"):
            first = lossless.remove(original, recipe)
    tuned, built = _built(original, recipe, given, first, stage)
    return _result(source, original, built, recipe, first, stage, given, tuned, agreement=agreement)


def _built(
    original: Model, recipe: Recipe, samples: Samples | None, first: lossless.Exact | None, stage: Stages
) -> tuple[search.Tuned | None, Built]:
    """The model that the recipe comes to, after what goes without loss; how it was searched for if it was."""
    if first and recipe.only_exact:
        return None, Built(first.model, first.facts, first.pruned, first.check)
    rest = first.remaining(recipe) if first else recipe
    removal = first.facts.removal if first else None
    compiler = Compiler(first.model if first else original, rest, samples, stage, removal)
    target = Target.parse(rest.target)
    if recipe.max_drop:
        judged = calibrate.open_samples(recipe.eval, original.inputs, option="--eval", preprocess=recipe.preprocess)
        evaluation = Evaluation(original, judged, recipe.metric)
        tuned = search.within_drop(compiler, evaluation, parse_drop(recipe.max_drop), target)
        return tuned, tuned.built
    return None, compiler.build(str(search.at_latency(compiler, target) if target.metric == "latency" else target))


def sensitivity(
    source: Source,
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
    recipe = dataclasses.replace(recipe or Recipe(), scope="sensitivity", target="macs=1")
    original = Model.of(source)
    given = calibrate.given(samples, original.inputs, recipe.preprocess)
    coupling, curves = Compiler(original, recipe, given, Stages(progress)).curves()
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


def price(analysis: Analysis, chosen: Plan, costs: CostModel | None = None) -> tuple[Cost, Cost, dict[str, float]]:
    """What a model costs before and after a plan, and the fraction of each metric that remains."""
    coupling = analysis.coupling
    costs = costs or CostModel(analysis.model, coupling, analysis.shapes.batch)
    counts = {group.factor: len(chosen.keep[group.id]) for group in coupling.groups if group.id in chosen.keep}
    before, after = costs.cost({}), costs.cost(counts)
    obtained = {metric: getattr(after, metric) / max(getattr(before, metric), 1) for metric in METRICS}
    positions = sum(group.size for group in coupling.groups)
    obtained["channels"] = sum(counts.get(g.factor, g.size) for g in coupling.groups) / positions if positions else 1.0
    return before, after, obtained


def foreign(source: Source, chosen: Plan) -> str:
    """What to tell a user who applies a plan to another file than it was made for; empty if it is that file.

    It is no error: a plan for one training run fits the next, as long as every group has as many positions.
    """
    if not chosen.sha256 or not isinstance(source, str | Path) or files.sha256(source) == chosen.sha256:
        return ""
    return f"{source} is not the file that the plan was made for ({chosen.file}, sha256 {chosen.sha256[:12]}...); the groups fit"


def apply(source: Source, chosen: Plan, *, masked: bool = False) -> Model:
    """Carry out a plan: the pruned model, or the original with zeros at the removed positions; see also `foreign`.

    Raises:
        ModelError: the source is not a model that can be read.
        PlanError: the plan is for another model.
    """
    found = analyze(source, allow_inexact=True)
    facts = Facts(found.shapes, found.coupling, plan=chosen)
    step = MaskChannels() if masked else PruneChannels()
    return step(found.model, facts)


def check(original: Source, pruned: Source, chosen: Plan, *, seed: int = 0) -> law.Check:
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
                return law.Check(ok=False, error=float("inf"), text=f"graph {side} {name!r} is not the original's")
    facts = Facts(found.shapes, found.coupling, plan=chosen)
    masked = MaskChannels()(found.model, facts)
    inexact = {group.id for group in found.coupling.groups if not group.exact}
    values = not inexact & chosen.keep.keys()
    return law.compare(small, masked, seed=seed, values=values, kept=kept_by(facts))


def _given(recipe: Recipe, model: Model) -> Samples | None:
    """The samples that a recipe names; ``None`` where it names none, or noise."""
    return calibrate.given("" if recipe.blind else recipe.calib, model.inputs, recipe.preprocess)


def _signed(chosen: Plan, source: Source) -> Plan:
    """The plan, with the file it was made for."""
    if not isinstance(source, str | Path):
        return chosen
    return dataclasses.replace(chosen, file=Path(source).name, sha256=files.sha256(source))


def _result(
    source: Source,
    original: Model,
    built: Built,
    recipe: Recipe,
    first: lossless.Exact | None,
    stage: Stages,
    samples: Samples | None,
    tuned: search.Tuned | None,
    *,
    agreement: bool,
) -> Result:
    facts, pruned, chosen = built.facts, built.pruned, built.plan
    coupling = need(facts.coupling, "coupling")
    drift = None
    if agreement:
        with stage("agreement", "comparing outputs with the original's"):
            drift = law.drift(pruned, original, samples, seed=recipe.seed)
    before, after, obtained = price(Analysis(built.model, need(facts.shapes, "shapes"), coupling), chosen, facts.costs)
    if first:
        before, obtained = first.before, first.against(after, obtained)
    groups = tuple(
        GroupReport(g.id, g.size, len(chosen.keep.get(g.id, range(g.size))), g.exact, len(g.members)) for g in coupling.groups
    )
    notes = []
    if facts.frozen:
        groups_in_all = len(coupling.groups) + len(facts.frozen)
        notes.append(f"left whole, because they failed verification: {len(facts.frozen)} of {groups_in_all} groups")
    if any(not g.exact and g.kept < g.size for g in groups):
        notes.append("inexact groups were pruned: equality with the masked model was proven for the exact ones only")
    if recipe.blind and recipe.repair:
        helped = (
            "repaired on noise, not on data: samples repair better"
            if facts.repairs
            else "repair on noise did not help, and was left out"
        )
        notes.append(helped)
    report = Report(
        model=original.name,
        requested="lossless" if recipe.only_exact else str(tuned.target if tuned else Target.parse(recipe.target)),
        score=tuned.score if tuned else None,
        tried=tuned.tried if tuned else (),
        obtained=obtained,
        before=before,
        after=after,
        groups=groups,
        refusals=tuple(refusal.to_dict() for refusal in coupling.refusals),
        verification=built.check,
        repairs=tuple(facts.repairs or ()),
        frozen=dict(facts.frozen),
        drift=drift,
        seconds=dict(stage.seconds),
        notes=tuple(notes),
        lossless=first.to_dict(chosen) if first else None,
    )
    return Result(report, _signed(chosen, source), coupling, compiled=pruned)


def describe(analysis: Analysis) -> dict[str, Any]:
    """Everything `inspect` shows, as data: costs, groups, refusals, layers."""
    from onnxprune.pruning.cost import layer_costs

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
    cost = CostModel(analysis.model, coupling, batch).cost({})
    return {
        "model": analysis.model.name,
        "opset": analysis.model.opset,
        "cost": dataclasses.asdict(cost),
        "groups": groups,
        "refusals": [refusal.to_dict() for refusal in coupling.refusals],
        "layers": layers,
    }
