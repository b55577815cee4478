"""Commands that let models be planned for other devices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onnxprune.cli.app import app
from onnxprune.cli.console import console, say
from onnxprune.cli.derived import Some, command
from onnxprune.cli.output import progress, show
from onnxprune.errors import OptionError
from onnxprune.options.commands import LatencyMeasure, LatencyShapes
from onnxprune.options.prune import Recipe

latency = typer.Typer(
    name="latency",
    help="Latencies of other devices, which models are pruned for here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(latency)


@command(latency, "latency shapes")
def shapes(
    recipe: Annotated[Recipe, Some("align protect only allow_inexact lossless calib preprocess shape")], given: LatencyShapes
) -> None:
    """Write what another device needs to time the layers of a model: a file, and a program of one file."""
    from onnxprune.driver.devices import timed_models
    from onnxprune.ir.files import check_output
    from onnxprune.ir.outputs import Outputs
    from onnxprune.latency.worklist import program

    folder = given.output
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"-o {folder}: is a file: name a folder")
    with progress("reading", quiet=given.as_json, phases=("analysis",)) as tell, Outputs() as outputs:
        asked = timed_models(given.model, recipe, progress=tell)
        outputs.folder(folder)
        for name, content in (("shapes.json", asked.content), ("measure.py", program().encode())):
            outputs.open(check_output(folder / name, inputs=(given.model,), force=given.force)).file.write(content)
    nexts = [f"python {folder / 'measure.py'} {folder / 'shapes.json'} -o device.db"]
    told = {
        "model": str(given.model),
        "output": str(folder),
        "layer_models": asked.layers,
        "whole_models": asked.wholes,
        "next": nexts,
    }
    show({**told, "bytes": len(asked.content)}, given, lambda: _written(told, len(asked.content)))


def _written(told: dict[str, Any], size: int) -> None:
    out = console()
    say(
        out,
        f"{told['output']}: {told['layer_models']} models of layers and {told['whole_models']} of the whole, {size / 1e3:.0f} kB",
    )
    say(out, f"copy it to the device, and run there: {told['next'][0]}")
    say(out, f"then here: onnxprune prune {told['model']} -o small.onnx --target latency=0.5 --device-table device.db")


@command(latency, "latency measure")
def measure(given: LatencyMeasure) -> None:
    """Time what `latency shapes` wrote, on this machine, into a table; devices without onnxprune run measure.py instead."""
    from onnxprune.latency.on_device import measure as run

    with progress("timing layers", quiet=given.as_json) as tell:
        try:
            done = run(
                given.shapes,
                given.output,
                given.provider,
                given.threads,
                lambda text, step, steps: tell(f"{text} ({step} of {steps})"),
            )
        except ValueError as error:
            raise OptionError(str(error)) from error
    show(done, given, lambda: _measured(done))


def _measured(done: dict[str, Any]) -> None:
    missing = f"; {done['failed']} do not run here" if done["failed"] else ""
    say(console(), f"{done['path']}: times of {done['models']} models{missing}, on {done['machine']['cpu']}")
