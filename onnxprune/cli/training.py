"""Commands that train; they need the extra ``torch``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.derived import options_of
from onnxprune.cli.options import CALIB, Force, Json, Model, Out, Preprocess
from onnxprune.cli.output import progress, show
from onnxprune.training import Sparse, Training

if TYPE_CHECKING:
    from onnxprune.torch.tuning import Tuned

Tell = Callable[[str], None]
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

    def run(tell: Tell) -> Tuned:
        from onnxprune.torch.tuning import Material
        from onnxprune.torch.tuning import finetune as tune

        return tune(model, Material(data, teacher, evaluation or None, preprocess, resume, log), training, progress=tell)

    _carry_out(run, model, output, teacher, resume, force=force, as_json=as_json)


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

    def run(tell: Tell) -> Tuned:
        from onnxprune.torch.training import train as tune
        from onnxprune.torch.tuning import Material

        return tune(model, Material(data, teacher, evaluation or None, preprocess, resume, log), recipe, training, progress=tell)

    _carry_out(run, model, output, teacher, resume, force=force, as_json=as_json)


def _carry_out(
    run: Callable[[Tell], Tuned],
    model: Path,
    output: Path,
    teacher: Path | None,
    resume: Path | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Check what would be written before PyTorch is loaded, train, write, and report."""
    from onnxprune import files, tables

    inputs = (model, *([teacher] if teacher else []))
    out = files.check_output(output, inputs=inputs, force=force)
    if resume:
        files.check_output(resume, inputs=(*inputs, output), force=True)
    with progress("reading", quiet=as_json) as tell:
        result = run(tell)
        result.save(out, force=force)
    if not result.first:
        return
    report = {**result.report, "output": str(out), "bytes": out.stat().st_size}
    show(report, as_json, lambda: tables.trained(report))
