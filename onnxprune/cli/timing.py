"""The command that times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import app
from onnxprune.cli.options import Batch, Json, Providers, Threads, integers
from onnxprune.cli.output import progress, show


@app.command()
def benchmark(
    models: Annotated[list[Path], typer.Argument(help="One or more .onnx files; ratios are to the first.", metavar="MODEL...")],
    providers: Providers = "cpu",
    batch: Batch = "1",
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="Time for each candidate.", min=0.1)] = 2.0,
    memory: Annotated[bool, typer.Option("--memory", help="Also measure peak memory, in fresh processes.")] = False,
    as_json: Json = False,
) -> None:
    """Time models side by side in ONNX Runtime."""
    from onnxprune.cli import tables
    from onnxprune.latency.benchmark import benchmark as run

    with progress("preparing", quiet=as_json) as tell:
        report = run(
            models,
            providers=[name.strip() for name in providers.split(",")],
            batches=integers("--batch", batch),
            threads=threads,
            seconds=seconds,
            memory=memory,
            progress=lambda text, step, steps: tell(f"measuring {text} ({step}/{steps})"),
        )
    show(report.to_dict(), as_json, lambda: tables.timings(report))
