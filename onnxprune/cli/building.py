"""The command that carries out a recipe file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.options import Force, Json
from onnxprune.cli.output import progress, show


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A .toml file: model, output, and a table for every step.", metavar="RECIPE")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write here, not where the recipe says.", metavar="OUT")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep the model after every step here; when run again, finished steps are not.", metavar="FOLDER"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and print its steps; compute nothing.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prune, finetune, quantize, ... as a recipe file says, each step on what the last one left."""
    import dataclasses

    from onnxprune.cli import training_tables
    from onnxprune.pipeline import run as pipeline

    build = pipeline.Build.load(recipe)
    if output:
        build = dataclasses.replace(build, output=output)
    if dry_run:
        planned = build.to_dict()
        show(planned, as_json, lambda: training_tables.steps(planned))
        return
    with progress("reading", quiet=as_json) as tell:
        report = pipeline.run(build, keep=keep, force=force, progress=tell)
    show(report, as_json, lambda: training_tables.built(report))
