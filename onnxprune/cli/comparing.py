"""The command that puts two results side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.cli.app import app
from onnxprune.cli.console import console, counted, say, table
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show
from onnxprune.options.commands import Compare

if TYPE_CHECKING:
    from onnxprune.driver.compare import Comparison

_SHOWN = 20
"""Layers that are listed before the rest is counted."""


@command(app)
def compare(given: Compare) -> None:
    """Two models, or two reports that --json printed, side by side."""
    from onnxprune.driver.compare import compare as run

    with progress("reading", quiet=given.as_json):
        found = run(given.first, given.second)
    show(found.to_dict(), given, lambda: _draw(found, every=given.every))


def _draw(found: Comparison, *, every: bool) -> None:
    from onnxprune.cli.tables import rest

    out = console()
    for side, name, made, verdict in zip("AB", found.names, found.recipes, found.verdicts, strict=True):
        say(out, f"{side}: {name}{f' ({made})' if made else ''}{f': {verdict}' if verdict else ''}")
    listed = table("", "", "A", "B", "B / A")
    for row in found.rows:
        listed.add_row(row.name, row.first or "-", row.second or "-", "" if row.ratio is None else f"{row.ratio:.3f}")
    out.print(listed)
    shown = None if every else _SHOWN
    title = f"{counted(len(found.layers), 'layer')} differ, {found.same} are alike"
    if not found.layers:
        say(out, title)
        return
    differing = table(title, "layer", "A", "B")
    for layer in found.layers[:shown]:
        differing.add_row(layer.name, *("-" if size is None else str(size) for size in (layer.first, layer.second)))
    out.print(differing)
    rest(out, len(found.layers), shown, "--all", "layer")
