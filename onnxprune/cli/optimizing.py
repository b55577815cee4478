"""The command that mixes all ways to make a model faster."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import destination, progress, show, write
from onnxprune.options.commands import Writes
from onnxprune.options.gates import Gates
from onnxprune.options.optimize import OptimizeRecipe


@command(app)
def optimize(recipe: OptimizeRecipe, gates: Gates, given: Writes) -> None:
    """Make a model as fast as it can be within a drop of its score: by blocks, channels, int8 and zeros, as measured here."""
    from onnxprune.cli import optimize_tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver.judgement import judge_optimized
    from onnxprune.ir import files
    from onnxprune.pipeline.optimizing import optimize as run

    out = destination(given).file
    with progress("reading", quiet=given.as_json) as tell:
        result = run(given.model, recipe, progress=tell)
        tell("comparing outputs with the original's")
        judged = judge_optimized(given.model, recipe, gates, result.compiled, result.report.score)
        tell("writing")
        write(result.compiled, given, {**result.to_dict(), "judgement": judged.to_dict()})
    found = Suggestions(given.model, out, calib=recipe.calib, shape=recipe.shape)
    nexts, told = found.benchmark().finetune().commands, result.report
    report = {
        **result.to_dict(),
        "judgement": judged.to_dict(),
        "output": str(out),
        "bytes": files.size_on_disk(out),
        "next": nexts,
    }
    show(report, given, lambda: optimize_tables.optimized(told, str(out), judged, commands=nexts))
