"""The command that carries out a recipe file."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show, warn
from onnxprune.options.commands import Run


@command(app)
def run(given: Run) -> None:
    """Prune, finetune, quantize, ... as a recipe file says, each step on what the last one left."""
    import dataclasses

    from onnxprune.cli import training_tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.pipeline import run as pipeline

    build = pipeline.Build.load(given.recipe)
    if given.output:
        build = dataclasses.replace(build, output=given.output)
    uri, build = given.mlflow or build.mlflow, dataclasses.replace(build, mlflow="")  # what is logged is what is printed
    if given.dry_run:
        planned = build.to_dict()
        show(planned, dataclasses.replace(given, mlflow=""), lambda: training_tables.steps(planned))
        return
    if uri and not given.mlflow:
        from onnxprune.driver.tracking import check_tracking

        check_tracking(uri)
    with progress("reading", quiet=given.as_json) as tell:
        report = pipeline.run(build, keep=given.keep, force=given.force, progress=tell)
        for text in report["notes"]:
            warn(text)
    nexts = Suggestions(build.model, build.output, shape=build.shape).benchmark().add("inspect", build.output).commands
    report = {**report, "next": nexts}
    show(report, dataclasses.replace(given, mlflow=uri), lambda: training_tables.built(report))
