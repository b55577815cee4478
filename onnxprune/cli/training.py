"""Commands that train; they need the extra ``torch``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.derived import options_of
from onnxprune.cli.options import CALIB, Force, Json, Model, Out, Preprocess
from onnxprune.cli.output import progress, show
from onnxprune.options.train import Sparse, Training

if TYPE_CHECKING:
    from onnxprune.training.inputs import TrainingInputs
    from onnxprune.training.progress import Tell
    from onnxprune.training.session import TrainedModel

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


@dataclass(frozen=True)
class Job:
    """What every command that trains reads and writes."""

    model: Model
    output: Out
    data: Data
    teacher: Teacher = None
    evaluation: Eval = ""
    preprocess: Preprocess = ""
    resume: Resume = None
    log: Log = None
    force: Force = False
    as_json: Json = False

    def carry_out(self, run: Callable[[Path, TrainingInputs, Tell], TrainedModel]) -> None:
        """Check what would be written before PyTorch is loaded, train, write, and report."""
        from onnxprune.cli import training_tables
        from onnxprune.ir import files

        inputs = (self.model, *([self.teacher] if self.teacher else []))
        out = files.check_output(self.output, inputs=inputs, force=self.force)
        if self.resume:
            files.check_output(self.resume, inputs=(*inputs, self.output), force=True)
        with progress("reading", quiet=self.as_json) as tell:
            from onnxprune.training.inputs import TrainingInputs

            material = TrainingInputs(self.data, self.teacher, self.evaluation or None, self.preprocess, self.resume, self.log)
            result = run(self.model, material, tell)
            result.save(out, force=self.force)
        if not result.first:
            return
        report = {**result.report, "output": str(out), "bytes": out.stat().st_size}
        show(report, self.as_json, lambda: training_tables.trained(report))


@app.command()
@options_of(Training, "training")
@options_of(Job, "job")
def finetune(job: Job, training: Training) -> None:
    """Train a model, pruned or sparse, by labels or to do what the original does; zeros stay zeros."""

    def run(model: Path, material: TrainingInputs, tell: Tell) -> TrainedModel:
        from onnxprune.training.finetune import finetune as tune

        return tune(model, material, training, progress=tell)

    job.carry_out(run)


@app.command()
@options_of(Training, "training")
@options_of(Sparse, "recipe")
@options_of(Job, "job")
def train(job: Job, recipe: Sparse, training: Training) -> None:
    """Make a model sparse, or with --target smaller, while it is trained, by one of the recipes of the literature."""

    def run(model: Path, material: TrainingInputs, tell: Tell) -> TrainedModel:
        from onnxprune.training.train import train as tune

        return tune(model, material, recipe, training, progress=tell)

    job.carry_out(run)
