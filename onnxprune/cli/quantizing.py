"""The command that makes int8 models."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.derived import options_of
from onnxprune.cli.options import Force, Json, Model, Out
from onnxprune.cli.output import progress, show
from onnxprune.options.quantize import QuantRecipe

RENAMED = {"per_channel": "--per-channel/--per-tensor"}
"""Options that are not called like their fields."""


@app.command()
@options_of(QuantRecipe, "recipe", RENAMED)
def quantize(
    model: Model,
    output: Out,
    recipe: QuantRecipe,
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Do not compare outputs with the original's.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a model compute in int8, pruned or sparse ones too: every zero stays zero."""
    from onnxprune.cli import tables
    from onnxprune.driver.quantize import quantize as run
    from onnxprune.ir import files

    out = files.check_output(output, inputs=(model,), force=force)
    with progress("reading", quiet=as_json) as tell:
        result = run(model, recipe, agreement=not no_compare, progress=tell)
        tell("writing")
        result.save(out, force=force)
    report = {**result.report.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
    show(report, as_json, lambda: tables.quantized(result.report, str(out)))
