"""Commands that train; they need the extra ``torch``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import destination, progress, show, write
from onnxprune.options.commands import Train
from onnxprune.options.gates import Gates
from onnxprune.options.train import Lesson, Sparse, Training

if TYPE_CHECKING:
    from onnxprune.training.inputs import TrainingInputs
    from onnxprune.training.progress import Tell
    from onnxprune.training.session import TrainedModel


@command(app)
def finetune(training: Training, lesson: Lesson, gates: Gates, given: Train) -> None:
    """Train a model, pruned or sparse, by labels or to do what the original does; zeros stay zeros."""

    def run(material: TrainingInputs, tell: Tell) -> TrainedModel:
        from onnxprune.training.finetune import finetune as tune

        return tune(given.model, material, training, progress=tell)

    _carry_out(lesson, gates, given, run)


@command(app)
def train(recipe: Sparse, training: Training, lesson: Lesson, gates: Gates, given: Train) -> None:
    """Make a model sparse, or with --target smaller, while it is trained, by one of the recipes of the literature."""

    def run(material: TrainingInputs, tell: Tell) -> TrainedModel:
        from onnxprune.training.train import train as tune

        return tune(given.model, material, recipe, training, progress=tell)

    _carry_out(lesson, gates, given, run)


def _carry_out(lesson: Lesson, gates: Gates, given: Train, run: Callable[[TrainingInputs, Tell], TrainedModel]) -> None:
    """Check what would be written before PyTorch is loaded, train, write, and report."""
    from onnxprune.cli import training_tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.ir import files

    inputs = (given.model, *([Path(lesson.model)] if lesson.model else []))
    out = destination(given, *inputs).file
    if given.resume:
        files.check_output(given.resume, inputs=(*inputs, out), force=True)
    with progress("reading", quiet=given.as_json) as tell:
        from onnxprune.training.inputs import TrainingInputs

        teacher, log = Path(lesson.model) if lesson.model else None, Path(lesson.log) if lesson.log else None
        material = TrainingInputs(lesson.data, teacher, lesson.eval or None, lesson.preprocess, given.resume, log, gates=gates)
        result = run(material, tell)
        if result.first:
            write(result.compiled, given, result.to_dict())
    if not result.first:
        return
    nexts = Suggestions(given.model, out).benchmark().add("inspect", out).commands
    sizes = {"before_bytes": files.size_on_disk(given.model), "bytes": files.size_on_disk(out)}
    report = {**result.to_dict(), "output": str(out), **sizes, "next": nexts}
    show(report, given, lambda: training_tables.trained(report, every=given.every))
