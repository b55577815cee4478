"""Commands that find, decide, remove and prove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from onnxprune.cli.app import app
from onnxprune.cli.derived import Some, command
from onnxprune.cli.output import as_json_file, complain, destination, failure, progress, show, warn, write
from onnxprune.errors import OnnxPruneError, OptionError, VerificationError
from onnxprune.options.commands import Apply, Inspect, Makes, Prune, Sensitivity, Verify
from onnxprune.options.gates import Gates
from onnxprune.options.prune import Recipe

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.driver.prune import Result
    from onnxprune.driver.result import Pruned


@command(app)
def inspect(recipe: Annotated[Recipe, Some("protect allow_inexact shape")], given: Inspect) -> None:
    """What can be pruned, what cannot, and why; which weights are sparse."""
    from onnxprune.cli import inspection_tables
    from onnxprune.driver import encode
    from onnxprune.driver import prune as api

    with progress("finding coupling groups", quiet=given.as_json) as tell:
        found = api.describe(
            api.analyze(given.model, protect=recipe.protect, allow_inexact=recipe.allow_inexact, shape=recipe.shape)
        )
        tell("counting zeros")
        found["sparsity"] = encode.describe(given.model)
    show(found, given, lambda: inspection_tables.inspection(found, layers=given.layers, every=given.every))


@command(app)
def prune(recipe: Recipe, given: Prune) -> None:
    """Write a physically smaller model that meets a target."""
    import dataclasses

    from onnxprune.cli import phases, pruning_tables
    from onnxprune.cli.suggestions import keep_more
    from onnxprune.driver import prune as api
    from onnxprune.driver.progress import Phase
    from onnxprune.ir import files
    from onnxprune.ir.outputs import Outputs

    if recipe.lossless and given.plan_out:
        raise OptionError("--plan-out with --lossless: a plan does not say what takes over removed positions; leave one out")
    model, force = given.model, given.force
    out = destination(given).file
    plan_path = files.check_output(given.plan_out, inputs=(model, out), force=force) if given.plan_out else None
    timed = given.benchmark and not recipe.device_table  # this machine says nothing of another one
    expected = phases.pruning(recipe, timed=timed)
    with progress("reading", quiet=given.as_json, phases=expected) as tell:
        result = api.prune(model, recipe, agreement=recipe.verify, progress=tell)
        if timed:
            tell(Phase("measuring latency", phases.LATENCY))
            result = with_benchmark(model, result)
        tell(Phase("writing", phases.WRITING))
        with Outputs() as outputs:
            digest = write(result.compiled, given, result.to_dict(), outputs)
            if plan_path:
                plan = dataclasses.replace(result.plan, pruned=digest)
                outputs.open(plan_path).file.write(as_json_file(plan.to_dict(result.coupling)))
    nexts = _after(recipe, given, result, out)
    remedy = keep_more(recipe.calib, "a larger --target, or --max-drop 1% --eval DATA", compared=recipe.verify)
    report = {**result.to_dict(), "output": str(out), "next": nexts}
    told = result.report
    show(
        report,
        given,
        lambda: pruning_tables.pruning(told, str(out), remedy=remedy, commands=nexts, every=given.every),
    )


def _after(recipe: Recipe, given: Prune, result: Result, out: Path) -> list[str]:
    """What to do next: make up for what was lost, or go on."""
    from onnxprune.cli.suggestions import Suggestions

    found = Suggestions(given.model, out, calib=recipe.calib, shape=recipe.shape)
    judged = result.report.judgement
    if not recipe.calib and not recipe.only_exact:
        found.samples(result.compiled, noise=True)
    elif judged and judged.level == "collapsed":
        if recipe.target.fraction < 1:
            found.again("--target", f"{recipe.target.metric}={(1 + recipe.target.fraction) / 2:g}", without=("--target",))
        found.finetune()
    return found.quantize().finetune().benchmark().commands


@command(app)
def plan(
    recipe: Annotated[
        Recipe, Some("target criterion scope align protect only allow_inexact calib preprocess seed shape device_table")
    ],
    given: Makes,
) -> None:
    """Decide what to remove, and write it down for review."""
    from onnxprune.cli import phases, pruning_tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver import prune as api
    from onnxprune.driver.costs import price
    from onnxprune.ir import files
    from onnxprune.ir.outputs import replace_file

    out = files.check_output(given.output, inputs=(given.model,), force=given.force)
    with progress("reading", quiet=given.as_json, phases=phases.planning(recipe)) as tell:
        chosen, analysis = api.make_plan(given.model, recipe, progress=tell)
        obtained = price(analysis, chosen)[2]
    document = chosen.to_dict(analysis.coupling)
    with replace_file(out) as file:
        file.write(as_json_file(document))
    found = Suggestions(given.model, out, shape=recipe.shape)
    repair = ("--calib", recipe.calib, *(("--preprocess", recipe.preprocess) if recipe.preprocess else ()))
    small = out.with_name(f"{given.model.stem}-pruned{given.model.suffix}")
    nexts = found.add("apply", given.model, out, "-o", small, *(repair if recipe.calib else ())).commands
    told = {**document, "output": str(out), "obtained": obtained, "next": nexts}
    show(told, given, lambda: pruning_tables.planned(document, str(out), obtained, commands=nexts, every=given.every))


@command(app)
def sensitivity(
    recipe: Annotated[Recipe, Some("calib! preprocess criterion repair protect only allow_inexact seed shape")],
    given: Sensitivity,
) -> None:
    """What each group costs: the error of the outputs when it alone is cut, and repaired."""
    from onnxprune.cli import phases, pruning_tables
    from onnxprune.driver import prune as api
    from onnxprune.ir import files
    from onnxprune.ir.outputs import replace_file

    picture = files.check_output(given.plot, inputs=(given.model,), force=given.force) if given.plot else None
    with progress("reading", quiet=given.as_json, phases=phases.sensing()) as tell:
        found = api.sensitivity(given.model, recipe.calib, recipe, progress=tell)
        if picture:
            from onnxprune.cli.plots import curves

            with replace_file(picture) as file:
                curves(found, file, picture.suffix)
    show(found, given, lambda: pruning_tables.sensitivities(found))


@command(app)
def apply(recipe: Annotated[Recipe, Some("calib preprocess seed shape")], gates: Gates, given: Apply) -> None:
    """Carry out a plan; with samples, repair what it cuts as `prune` does."""
    from onnxprune.axes.plan import Plan
    from onnxprune.cli import phases, pruning_tables
    from onnxprune.cli.suggestions import Suggestions, keep_more
    from onnxprune.driver import apply as api
    from onnxprune.driver.progress import Phase
    from onnxprune.driver.proof import demand
    from onnxprune.ir import files

    masked = given.masked
    out = destination(given, given.plan).file
    expected = phases.applying(recipe, masked=masked)
    with progress("reading" if not masked else "masking", quiet=given.as_json, phases=expected) as tell:
        chosen = Plan.load(given.plan)
        notes = warn(api.foreign(given.model, chosen)) + warn("" if masked else api.unrepaired(chosen, recipe))
        result = api.carry_out(given.model, chosen, recipe, masked=masked, gates=gates, progress=tell)
        if given.require_proof:
            demand(result.check, str(given.model))
        tell(Phase("writing", phases.WRITING))
        done = {**_applied(result, chosen, masked=masked), "model": str(given.model), "output": str(out), "notes": notes}
        write(result.model, given, done)
    done["bytes"] = done["after"]["size"] = files.size_on_disk(out)
    found = Suggestions(given.model, out, calib=recipe.calib, shape=recipe.shape)
    if not masked:
        found.add("verify", given.model, out, "--plan", given.plan)
    done["next"] = found.benchmark().quantize().commands
    remedy = "" if masked else keep_more(recipe.calib, "another plan")
    show(
        done,
        given,
        lambda: pruning_tables.applied(done, result.repairs, remedy=remedy, commands=done["next"], every=given.every),
    )


def _applied(result: Pruned, chosen: Plan, *, masked: bool) -> dict[str, Any]:
    """What came of a plan, as plain data."""
    import dataclasses

    from onnxprune.driver.costs import outcome
    from onnxprune.ir.history import made

    before, after, _ = outcome(result)
    kept = {
        group.id: (group.size, len(chosen.keep[group.id])) for group in result.analysis.coupling.groups if group.id in chosen.keep
    }
    return {
        "masked": masked,
        "groups": len(chosen.keep),
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(before if masked else after),
        "widths": [(name, size, left) for name, (size, left) in kept.items()],
        "judgement": result.judgement.to_dict() if result.judgement else None,
        "verification": None if result.check is None else dataclasses.asdict(result.check),
        "repairs": [dataclasses.asdict(one) for one in result.repairs],
        **made(result.model),
    }


@command(app)
def verify(given: Verify) -> None:
    """Prove that a pruned model computes what the masked original computes; of a repaired one, that its surgery does."""
    import dataclasses

    from onnxprune.axes.plan import Plan
    from onnxprune.cli import pruning_tables
    from onnxprune.driver import apply as api
    from onnxprune.driver.proof import demand

    with progress("verifying: pruned == masked", quiet=given.as_json):
        chosen = Plan.load(given.plan)
        found = api.check_repaired(
            given.model,
            given.pruned,
            chosen,
            repaired=given.repaired,
            samples=given.calib,
            preprocess=given.preprocess,
            seed=given.seed,
            shape=given.shape,
        )
        notes = (*warn(api.foreign(given.model, chosen)), *warn(api.unpaired(given.pruned, chosen)))
        outcome = dataclasses.replace(found.check, notes=(*found.check.notes, *notes))
        found = dataclasses.replace(found, check=outcome)
    if given.require_proof and outcome.ok:
        demand(outcome, str(given.pruned))
    told = {"model": str(given.model), "pruned": str(given.pruned), **found.to_dict()}
    if outcome.ok:
        show(told, given, lambda: pruning_tables.verified(outcome, found.repaired, found.drift))
        return
    error = VerificationError(f"{given.pruned}: {outcome.text}")
    show({**told, "failure": failure(str(error), error.exit_status, type(error).__name__)}, given, lambda: None)
    complain(str(error))
    sys.exit(error.exit_status)


def with_benchmark(model: Path, result: Result) -> Result:
    """The result with the latency of the original and of the pruned model, at sizes that the user gave or samples have.

    Where that cannot be measured, a note says why.
    """
    import dataclasses

    from onnxprune.ir.temporary import temporary_folder
    from onnxprune.latency.benchmark import benchmark as run

    report, shapes = result.report, result.compiled.sizes.shapes(result.compiled.inputs)
    with temporary_folder() as folder:
        small = folder / "pruned.onnx"
        result.save(small)
        try:
            timed = run([model, small], labels=["original", "pruned"], seconds=1.0, shapes=shapes)
        except OnnxPruneError as error:
            report = dataclasses.replace(report, notes=(*report.notes, f"latency was not measured: {error}"))
        else:
            report = dataclasses.replace(report, benchmark=timed)
    return dataclasses.replace(result, report=report)
