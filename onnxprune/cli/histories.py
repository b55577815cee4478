"""The command that tells how a file came about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.cli.app import app
from onnxprune.cli.console import console, say, table
from onnxprune.cli.derived import command
from onnxprune.cli.output import show
from onnxprune.options.commands import Log
from onnxprune.pages.listings import options_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.ir.history import Step

_DIGITS = 12
"""Of a hash, which tell files apart."""


@command(app)
def log(given: Log) -> None:
    """How a file came about: the commands that made it, with their options, and the files that they read."""
    from onnxprune.ir.history import history
    from onnxprune.ir.model import Model

    steps = history(Model.of(given.file).proto)
    told = {"model": str(given.file), "steps": [step.to_dict() for step in steps]}
    show(told, given, lambda: _draw(str(given.file), steps))


def _draw(model: str, steps: Sequence[Step]) -> None:
    out = console()
    if not steps:
        say(out, f"{model}: nothing in the file says how it was made; onnxprune did not write it")
        return
    if steps[0].producer:
        say(out, f"made by {steps[0].producer}, then by onnxprune:")
    listed = table(
        f"how {model} was made", "", "command", "options", "of the file with SHA-256", "version", text=("command", "options")
    )
    for number, step in enumerate(steps, 1):
        source = step.source[:_DIGITS] or "in memory"
        listed.add_row(str(number), step.command, options_text(step.options), source, step.version)
    out.print(listed)
