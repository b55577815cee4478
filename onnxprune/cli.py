"""The command line: a few lines per command over the API; tables on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from onnxprune.errors import OnnxPruneError, OptionError, VerificationError
from onnxprune.recipe import Recipe

if TYPE_CHECKING:
    from onnxprune.api import Result

__all__ = ["app", "main"]

app = typer.Typer(
    name="onnxprune",
    help="Make an exported ONNX model smaller and faster: channels are removed, the surgery is proven, the speed is measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[Path, typer.Argument(help="An .onnx file.", metavar="MODEL")]
Out = Annotated[Path, typer.Option("-o", "--output", help="Where to write.", metavar="OUT")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
TargetOption = Annotated[
    str,
    typer.Option("--target", help="What remains, as a fraction: macs=0.5, params=0.4, size=0.25, channels=0.5.", metavar="T"),
]
Criterion = Annotated[
    str,
    typer.Option(
        help="How channels are ranked: obs, wanda, flap, variance (by data), l1, l2, linf, fpgm, bn_scale, random; "
        "auto: obs with --calib, else l2."
    ),
]
Scope = Annotated[
    str,
    typer.Option(
        help="How the target is shared out: sensitivity (as measured on data), or by scores: uniform, global, isomorphic; "
        "auto: sensitivity with --calib, else global."
    ),
]
EVAL = "Samples that the score of --max-drop is taken on; forms as --calib."
MaxDrop = Annotated[
    str, typer.Option(help="Search the smallest model whose score is at most this much below the original's, as 1%.", metavar="D")
]
Metric = Annotated[str, typer.Option(help="The score: top1, agreement, mse, cosine, package.module:function, or auto.")]
NoRepair = Annotated[bool, typer.Option("--no-repair", help="Leave the weights that remain as they are.")]
Align = Annotated[str, typer.Option(help="Widths are multiples of this: auto (16), 1 or N.")]
Protect = Annotated[
    list[str] | None, typer.Option(help="Leave nodes and tensors of this name alone; may be repeated.", metavar="GLOB")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Kinds of groups that may shrink: channels, heads, mlp, residual; may be repeated.", metavar="KIND"),
]
Lossless = Annotated[
    bool,
    typer.Option(
        "--lossless", help="First remove dead, constant and duplicated channels, exactly; without --target, nothing else."
    ),
]
Inexact = Annotated[bool, typer.Option("--allow-inexact", help="Also prune what a normalisation runs over.")]
Seed = Annotated[int, typer.Option(help="Of everything drawn.", min=0)]
CALIB = "Samples: .npz, .npy, folder of images or .npz files, package.module:function."
Calib = Annotated[str, typer.Option(help=CALIB, metavar="DATA")]
Preprocess = Annotated[
    str,
    typer.Option(help="How images become arrays: imagenet, cifar10, unit, none, resize=256,crop=224,mean=...", metavar="TEXT"),
]
Providers = Annotated[str, typer.Option(help="Execution providers, comma-separated: cpu, cuda.")]
Batch = Annotated[str, typer.Option(help="Batch sizes, comma-separated.")]
Threads = Annotated[int, typer.Option(help="Threads of each session.", min=1)]
DEFAULT = Recipe()


@app.command()
def inspect(
    model: Model,
    protect: Protect = None,
    allow_inexact: Inexact = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer with its MACs and parameters.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List every group and every axis that cannot be pruned.")] = False,
    as_json: Json = False,
) -> None:
    """What can be pruned, what cannot, and why."""
    from onnxprune import api, tables

    with progress("finding coupling groups", quiet=as_json):
        found = api.describe(api.analyze(model, protect=protect or (), allow_inexact=allow_inexact))
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
    from onnxprune import api, files, tables

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
    from onnxprune import api, files, tables

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
    from onnxprune import api, files, tables

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
            from onnxprune.plots import curves

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
    from onnxprune import api, files, tables
    from onnxprune.plan import Plan

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

    from onnxprune import api, tables
    from onnxprune.plan import Plan

    with progress("verifying: pruned == masked", quiet=as_json):
        chosen = Plan.load(plan)
        outcome = api.check(original, pruned, chosen, seed=seed)
        outcome = dataclasses.replace(outcome, notes=(*outcome.notes, *warn(api.foreign(original, chosen))))
    if as_json or outcome.ok:
        show(dataclasses.asdict(outcome), as_json, lambda: tables.verified(outcome))
    if not outcome.ok:
        raise VerificationError(f"{pruned}: {outcome.text}")


@app.command()
def benchmark(
    models: Annotated[list[Path], typer.Argument(help="One or more .onnx files; ratios are to the first.", metavar="MODEL...")],
    providers: Providers = "cpu",
    batch: Batch = "1",
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="Time for each candidate.", min=0.1)] = 2.0,
    memory: Annotated[bool, typer.Option("--memory", help="Also measure peak memory, in fresh processes.")] = False,
    as_json: Json = False,
) -> None:
    """Time models side by side in ONNX Runtime."""
    from onnxprune import tables
    from onnxprune.bench import benchmark as run

    with progress("preparing", quiet=as_json) as tell:
        report = run(
            models,
            providers=[name.strip() for name in providers.split(",")],
            batches=integers("--batch", batch),
            threads=threads,
            seconds=seconds,
            memory=memory,
            progress=lambda text, step, steps: tell(f"measuring {text} ({step}/{steps})"),
        )
    show(report.to_dict(), as_json, lambda: tables.timings(report))


def with_benchmark(model: Path, result: Result) -> Result:
    """The result with the latency of the original and of the pruned model; where that cannot be measured, a note says why."""
    import dataclasses
    import tempfile

    from onnxprune.bench import benchmark as run

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


def integers(option: str, text: str) -> list[int]:
    """Positive integers, comma-separated."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise OptionError(f"{option} {text!r}: write positive numbers, comma-separated, as 1,8")
    return values


def as_json_file(document: dict[str, Any]) -> bytes:
    """A document as the text of a file."""
    return json.dumps(strict(document), indent=1, allow_nan=False).encode() + b"\n"


def strict(value: Any) -> Any:
    """Data that JSON can spell: what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(document: dict[str, Any], as_json: bool, draw: Callable[[], None]) -> None:
    """Print for machines or for people."""
    if as_json:
        typer.echo(json.dumps(strict(document), allow_nan=False))
    else:
        draw()


@contextmanager
def progress(text: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being done; nothing where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda description: bar.update(task, description=description)


def main() -> None:
    """Run the command line; what onnxprune raises on purpose, and what the system refuses, becomes one line and a status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # unwinds, so that no temporary file stays
    try:
        app()
    except OnnxPruneError as error:
        fail(str(error), error.exit_status)
    except BrokenPipeError:  # the reader of our output went away
        sys.exit(0)
    except OSError as error:
        fail(str(error), 2)


def warn(text: str) -> list[str]:
    """Say in one line, if at all, what may not be as the user thinks; also for a report."""
    if text:
        typer.echo(f"onnxprune: warning: {' '.join(text.split())}", err=True)
    return [text] if text else []


def fail(text: str, status: int) -> NoReturn:
    """Say in one line what went wrong, and exit."""
    typer.echo(f"onnxprune: {' '.join(text.split())}", err=True)
    sys.exit(status)
