"""Commands that train; they need the extra ``torch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.derived import options_of
from onnxprune.cli.options import CALIB, Force, Json, Model, Out, Preprocess
from onnxprune.cli.output import progress, show
from onnxprune.training import Sparse, Training

Data = Annotated[str, typer.Option("--data", help=f"{CALIB} Labels by the name label.", metavar="DATA")]
Teacher = Annotated[
    Path | None, typer.Option("--teacher", help="The model whose outputs are right: the original.", metavar="ORIGINAL")
]
Eval = Annotated[
    str, typer.Option("--eval", help="Samples that each epoch is judged on; the best is kept. Forms as --data.", metavar="DATA")
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Keep a checkpoint in this file, and go on from it if there is one: after a kill, repeat the command.",
        metavar="CHECKPOINT",
    ),
]
Log = Annotated[Path | None, typer.Option("--log", help="Write logs for TensorBoard to this folder.", metavar="FOLDER")]


@app.command()
@options_of(Training, "training")
def finetune(
    model: Model,
    output: Out,
    data: Data,
    training: Training,
    teacher: Teacher = None,
    evaluation: Eval = "",
    preprocess: Preprocess = "",
    resume: Resume = None,
    log: Log = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a model, pruned or sparse, by labels or to do what the original does; zeros stay zeros."""
    from onnxprune import files, tables
    from onnxprune.torch.tuning import Material
    from onnxprune.torch.tuning import finetune as run

    inputs = (model, *([teacher] if teacher else []))
    out = files.check_output(output, inputs=inputs, force=force)
    if resume:
        files.check_output(resume, inputs=(*inputs, output), force=True)
    material = Material(data, teacher, evaluation or None, preprocess, resume, log)
    with progress("reading", quiet=as_json) as tell:
        result = run(model, material, training, progress=tell)
        result.save(out, force=force)
    if not result.first:
        return
    report = {**result.report, "output": str(out), "bytes": out.stat().st_size}
    show(report, as_json, lambda: tables.trained(report))


@app.command()
@options_of(Training, "training")
@options_of(Sparse, "recipe")
def train(
    model: Model,
    output: Out,
    data: Data,
    training: Training,
    recipe: Sparse,
    teacher: Teacher = None,
    evaluation: Eval = "",
    preprocess: Preprocess = "",
    resume: Resume = None,
    log: Log = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a model sparse, or with --target smaller, while it is trained, by one of the recipes of the literature."""
    from onnxprune import files, tables
    from onnxprune.torch.tuning import Material

    if recipe.target:
        from onnxprune.torch.channels import train as run
    else:
        from onnxprune.torch.sparsify import train as run

    inputs = (model, *([teacher] if teacher else []))
    out = files.check_output(output, inputs=inputs, force=force)
    if resume:
        files.check_output(resume, inputs=(*inputs, output), force=True)
    material = Material(data, teacher, evaluation or None, preprocess, resume, log)
    with progress("reading", quiet=as_json) as tell:
        result = run(model, material, recipe, training, progress=tell)
        result.save(out, force=force)
    if not result.first:
        return
    report = {**result.report, "output": str(out), "bytes": out.stat().st_size}
    show(report, as_json, lambda: tables.trained(report))
