"""The command that times."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show
from onnxprune.options.benchmark import BenchmarkRecipe
from onnxprune.options.commands import Benchmark


@command(app)
def benchmark(recipe: BenchmarkRecipe, given: Benchmark) -> None:
    """Time models side by side in ONNX Runtime."""
    from onnxprune.cli import timing_tables
    from onnxprune.latency.benchmark import benchmark as run

    with progress("preparing", quiet=given.as_json) as tell:
        report = run(
            given.models,
            providers=recipe.names,
            batches=recipe.batches,
            threads=recipe.threads,
            seconds=recipe.seconds,
            memory=recipe.memory,
            shapes=recipe.shape,
            progress=lambda text, step, steps: tell(f"measuring {text} ({step}/{steps})"),
        )
    show(report.to_dict(), given, lambda: timing_tables.timings(report))
