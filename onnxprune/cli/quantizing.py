"""The command that makes int8 models."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import destination, progress, show, write
from onnxprune.options.commands import Compares
from onnxprune.options.quantize import ROUNDINGS, QuantRecipe


@command(app)
def quantize(recipe: QuantRecipe, given: Compares) -> None:
    """Make a model compute in int8, pruned or sparse ones too: every zero stays zero."""
    from onnxprune.cli import phases, tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver.progress import Phase
    from onnxprune.driver.quantize import quantize as run
    from onnxprune.ir import files

    out = destination(given).file
    with progress("reading", quiet=given.as_json, phases=phases.QUANTIZING) as tell:
        result = run(given.model, recipe, agreement=given.compare, progress=tell)
        tell(Phase("writing", phases.WRITING))
        write(result.compiled, given, result.to_dict())
    nexts = Suggestions(given.model, out, shape=recipe.shape).benchmark().commands
    report = {**result.to_dict(), "output": str(out), "bytes": files.size_on_disk(out), "next": nexts}
    told = result.report
    show(report, given, lambda: tables.quantized(told, str(out), remedy=_remedy(recipe), commands=nexts, every=given.every))


def _remedy(recipe: QuantRecipe) -> str:
    """What mends a bad result: options that were not given."""
    method = "" if recipe.method == "percentile" else "--method percentile or "
    rounding = next(name for name in ROUNDINGS if name != recipe.rounding)
    tried = f"try {method}--rounding {rounding}"
    return f"Leave what loses most in floating point with --exclude GLOB, {tried}, or give more samples (--calib)"
