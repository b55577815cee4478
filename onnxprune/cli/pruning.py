"""Commands that find, decide, remove and prove."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.options import (
    CALIB,
    DEFAULT,
    EVAL,
    Align,
    Calib,
    Criterion,
    Force,
    Inexact,
    Json,
    Lossless,
    MaxDrop,
    Metric,
    Model,
    NoRepair,
    Only,
    Out,
    Preprocess,
    Protect,
    Scope,
    Seed,
    TargetOption,
)
from onnxprune.cli.output import as_json_file, progress, show, warn
from onnxprune.errors import OnnxPruneError, OptionError, VerificationError
from onnxprune.options.prune import Recipe

if TYPE_CHECKING:
    from onnxprune.driver.prune import Result


@app.command()
def inspect(
    model: Model,
    protect: Protect = None,
    allow_inexact: Inexact = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer with its MACs and parameters.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List every group and every axis that cannot be pruned.")] = False,
    as_json: Json = False,
) -> None:
    """What can be pruned, what cannot, and why; which weights are sparse."""
    from onnxprune.cli import tables
    from onnxprune.driver import encode
    from onnxprune.driver import prune as api

    with progress("finding coupling groups", quiet=as_json) as tell:
        found = api.describe(api.analyze(model, protect=protect or (), allow_inexact=allow_inexact))
        tell("counting zeros")
        found["sparsity"] = encode.describe(model)
    show(found, as_json, lambda: tables.inspection(found, layers=layers, every=every))


@app.command()
def prune(
    model: Model,
    output: Out,
    target: TargetOption = "auto",
    lossless: Lossless = False,
    criterion: Criterion = DEFAULT.criterion,
    scope: Scope = DEFAULT.scope,
    align: Align = DEFAULT.align,
    protect: Protect = None,
    only: Only = None,
    allow_inexact: Inexact = False,
    calib: Calib = DEFAULT.calib,
    preprocess: Preprocess = DEFAULT.preprocess,
    max_drop: MaxDrop = DEFAULT.max_drop,
    evaluation: Annotated[str, typer.Option("--eval", help=EVAL, metavar="DATA")] = DEFAULT.eval,
    metric: Metric = DEFAULT.metric,
    no_repair: NoRepair = False,
    plan_out: Annotated[Path | None, typer.Option(help="Also write the plan.", metavar="PLAN")] = None,
    no_verify: Annotated[
        bool,
        typer.Option("--no-verify", help="Never run the model: no proof that pruned equals masked, no comparison of outputs."),
    ] = False,
    no_benchmark: Annotated[bool, typer.Option("--no-benchmark", help="Skip the timing.")] = False,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a physically smaller model that meets a target."""
    from onnxprune.cli import tables
    from onnxprune.driver import prune as api
    from onnxprune.ir import files

    recipe = Recipe(
        target=target,
        criterion=criterion,
        scope=scope,
        align=align,
        protect=tuple(protect or ()),
        only=tuple(only or ()),
        allow_inexact=allow_inexact,
        verify=not no_verify,
        seed=seed,
        repair=not no_repair,
        calib=calib,
        preprocess=preprocess,
        max_drop=max_drop,
        eval=evaluation,
        metric=metric,
        lossless=lossless,
    )
    if lossless and plan_out:
        raise OptionError("--plan-out with --lossless: a plan does not say what takes over removed positions; leave one out")
    out = files.check_output(output, inputs=(model,), force=force)
    plan_path = files.check_output(plan_out, inputs=(model, output), force=force) if plan_out else None
    with progress("reading", quiet=as_json) as tell:
        result = api.prune(model, recipe, agreement=not no_verify, progress=tell)
        if not no_benchmark:
            tell("measuring latency")
            result = with_benchmark(model, result)
        tell("writing")
        with files.replace_file(plan_path) if plan_path else nullcontext() as plan_file:
            if plan_file:
                plan_file.write(as_json_file(result.plan.to_dict(result.coupling)))
            result.save(out, force=force)
    report = {**result.report.to_dict(), "output": str(out)}
    show(report, as_json, lambda: tables.pruning(result.report, str(out)))


@app.command()
def plan(
    model: Model,
    output: Out,
    target: TargetOption = DEFAULT.target,
    criterion: Criterion = DEFAULT.criterion,
    scope: Scope = DEFAULT.scope,
    align: Align = DEFAULT.align,
    protect: Protect = None,
    only: Only = None,
    allow_inexact: Inexact = False,
    calib: Calib = DEFAULT.calib,
    preprocess: Preprocess = DEFAULT.preprocess,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Decide what to remove, and write it down for review."""
    from onnxprune.cli import tables
    from onnxprune.driver import prune as api
    from onnxprune.ir import files

    kinds = (tuple(protect or ()), tuple(only or ()), allow_inexact)
    recipe = Recipe(target, criterion, scope, align, *kinds, seed=seed, calib=calib, preprocess=preprocess)
    out = files.check_output(output, inputs=(model,), force=force)
    with progress("finding coupling groups", quiet=as_json) as tell:
        chosen, analysis = api.make_plan(model, recipe, progress=tell)
        obtained = api.price(analysis, chosen)[2]
    document = chosen.to_dict(analysis.coupling)
    with files.replace_file(out) as file:
        file.write(as_json_file(document))
    show(document, as_json, lambda: tables.planned(document, str(out), obtained))


@app.command()
def sensitivity(
    model: Model,
    calib: Annotated[str, typer.Option("--calib", help=CALIB, metavar="DATA")],
    preprocess: Preprocess = DEFAULT.preprocess,
    criterion: Criterion = DEFAULT.criterion,
    no_repair: NoRepair = False,
    protect: Protect = None,
    only: Only = None,
    allow_inexact: Inexact = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw the curves: .svg, .png or .pdf.", metavar="FILE")] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """What each group costs: the error of the outputs when it alone is cut, and repaired."""
    from onnxprune.cli import tables
    from onnxprune.driver import prune as api
    from onnxprune.ir import files

    recipe = Recipe(
        criterion=criterion,
        protect=tuple(protect or ()),
        only=tuple(only or ()),
        allow_inexact=allow_inexact,
        seed=seed,
        repair=not no_repair,
        calib=calib,
        preprocess=preprocess,
    )
    picture = files.check_output(plot, inputs=(model,), force=force) if plot else None
    with progress("finding coupling groups", quiet=as_json) as tell:
        found = api.sensitivity(model, calib, recipe, progress=tell)
        if picture:
            from onnxprune.cli.plots import curves

            with files.replace_file(picture) as file:
                curves(found, file, picture.suffix)
    show(found, as_json, lambda: tables.sensitivities(found))


@app.command()
def apply(
    model: Model,
    plan: Annotated[Path, typer.Argument(help="A plan that `plan` or `prune --plan-out` wrote.", metavar="PLAN")],
    output: Out,
    masked: Annotated[bool, typer.Option("--masked", help="Keep every shape; write zeros instead of cutting.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Carry out a plan."""
    from onnxprune.axes.plan import Plan
    from onnxprune.cli import tables
    from onnxprune.driver import prune as api
    from onnxprune.ir import files

    out = files.check_output(output, inputs=(model, plan), force=force)
    with progress("cutting" if not masked else "masking", quiet=as_json):
        chosen = Plan.load(plan)
        result = api.apply(model, chosen, masked=masked)
        notes = warn(api.foreign(model, chosen))
        files.save(result, out)
    done = {"output": str(out), "masked": masked, "groups": len(chosen.keep), "bytes": out.stat().st_size, "notes": notes}
    show(done, as_json, lambda: tables.applied(done))


@app.command()
def verify(
    original: Model,
    pruned: Annotated[Path, typer.Argument(help="The pruned model.", metavar="PRUNED")],
    plan: Annotated[Path, typer.Option(help="The plan it was pruned by.", metavar="PLAN")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Prove that a pruned model computes what the masked original computes."""
    import dataclasses

    from onnxprune.axes.plan import Plan
    from onnxprune.cli import tables
    from onnxprune.driver import prune as api

    with progress("verifying: pruned == masked", quiet=as_json):
        chosen = Plan.load(plan)
        outcome = api.check(original, pruned, chosen, seed=seed)
        outcome = dataclasses.replace(outcome, notes=(*outcome.notes, *warn(api.foreign(original, chosen))))
    if as_json or outcome.ok:
        show(dataclasses.asdict(outcome), as_json, lambda: tables.verified(outcome))
    if not outcome.ok:
        raise VerificationError(f"{pruned}: {outcome.text}")


def with_benchmark(model: Path, result: Result) -> Result:
    """The result with the latency of the original and of the pruned model; where that cannot be measured, a note says why."""
    import dataclasses
    import tempfile

    from onnxprune.latency.benchmark import benchmark as run

    report = result.report
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        small = Path(folder) / "pruned.onnx"
        result.save(small)
        try:
            timed = run([model, small], labels=["original", "pruned"], seconds=1.0)
        except OnnxPruneError as error:
            report = dataclasses.replace(report, notes=(*report.notes, f"latency was not measured: {error}"))
        else:
            report = dataclasses.replace(report, benchmark=timed)
    return dataclasses.replace(result, report=report)
