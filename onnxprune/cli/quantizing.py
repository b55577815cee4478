"""The command that makes int8 models."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show
from onnxprune.options.commands import Compares
from onnxprune.options.quantize import QuantRecipe


@command(app)
def quantize(recipe: QuantRecipe, given: Compares) -> None:
    """Make a model compute in int8, pruned or sparse ones too: every zero stays zero."""
    from onnxprune.cli import tables
    from onnxprune.driver.quantize import quantize as run
    from onnxprune.ir import files

    out = files.check_output(given.output, inputs=(given.model,), force=given.force)
    with progress("reading", quiet=given.as_json) as tell:
        result = run(given.model, recipe, agreement=given.compare, progress=tell)
        tell("writing")
        result.save(out, force=given.force)
    report = {**result.report.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
    show(report, given.as_json, lambda: tables.quantized(result.report, str(out)))
