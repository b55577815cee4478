"""The commands about sweeps: to run one, and to look at what came of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import complain, failure, progress, show, warn
from onnxprune.errors import OptionError, RequirementError
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import Pick, PickRecipe, Status, SweepCommand, SweepRecipe, SweepReport

if TYPE_CHECKING:
    from onnxprune.sweep.store import Store

_RUN = "run"


class _Group(TyperGroup):
    """Whatever is no command of the group is a model: ``sweep MODELS...`` stands for ``sweep run MODELS...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


sweep = typer.Typer(
    name="sweep",
    cls=_Group,
    help="Prune many models with many settings: sweep MODELS... -o FOLDER [OPTIONS]. `sweep run --help` lists the options.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(sweep)


@command(sweep, name="sweep run")
def run(recipe: SweepRecipe, engine: EngineOptions, given: SweepCommand) -> None:
    """Prune many models with many settings; what is done is kept, and not done again."""
    from onnxprune.cli import sweep_tables
    from onnxprune.sweep.asked import Sweep
    from onnxprune.sweep.run import run_sweep
    from onnxprune.sweep.store import FAILED

    if given.dry_run:
        planned = Sweep.of(recipe, engine, given.custom_ops)
        document = {**planned.to_dict(), "memory": planned.needed()}
        show(document, given, lambda: sweep_tables.planned(document))
        return
    with progress("reading", quiet=given.as_json, phases=("tasks", *(["latency"] if recipe.latency else []))) as tell:
        found = run_sweep(recipe, engine, custom_ops=given.custom_ops, mlflow=given.mlflow, progress=tell, warn=warn)
    document = {**found, "next": _nexts(found)}
    passing = sum(row["state"] == FAILED and not row["lasting"] for row in found["rows"])
    error = RequirementError(f"{passing} of {found['tasks']} tasks failed: repeat the command to try them again")
    if passing:
        document["failure"] = failure(str(error), error.exit_status, type(error).__name__)
    show(document, given, lambda: sweep_tables.swept(document))
    if passing:
        complain(str(error))
        sys.exit(error.exit_status)


def _nexts(found: Mapping[str, Any]) -> list[str]:
    from onnxprune.cli.suggestions import program

    given = shlex.quote(found["store"])
    least = "latency" if any(row["latency_ratio"] is not None for row in found["rows"]) else "size"
    good = "--max-drop 1%" if any(row["drop"] is not None for row in found["rows"]) else "--min-agreement 95%"
    return [f"{program()} sweep {words}" for words in (f"pick {given} {good} --min {least}", f"report {given}")]


@command(sweep, name="sweep status")
def status(given: Status) -> None:
    """What of a sweep is done, what failed and why, and what is left."""
    from onnxprune.cli import sweep_tables
    from onnxprune.sweep.summary import counts, rows_of

    rows = rows_of(_opened(given.store))
    document = {"store": given.store, "tasks": len(rows), **counts(rows), "rows": rows}
    show(document, given, lambda: sweep_tables.status(document, every=given.every))


@command(sweep, name="sweep pick")
def pick(recipe: PickRecipe, given: Pick) -> None:
    """The best result of each model: the fastest, or the smallest, of those that are good enough."""
    from onnxprune.cli import sweep_tables
    from onnxprune.ir.temporary import temporary_folder
    from onnxprune.sweep.picking import copied, place_for
    from onnxprune.sweep.summary import best, rows_of

    store = _opened(given.store)
    rows = best(rows_of(store), recipe)
    with temporary_folder() as folder:
        for row in rows:
            row["file"] = place_for(store, row)
            if given.output:
                row["output"] = copied(store, row, given.output, folder, several=len(rows) > 1, force=given.force)
    document = {"store": given.store, "picked": rows}
    show(document, given, lambda: sweep_tables.picked(document))


@command(sweep, name="sweep report")
def report(given: SweepReport) -> None:
    """All results of a sweep as one HTML page."""
    from onnxprune.cli.console import console, counted, say
    from onnxprune.ir.files import check_output
    from onnxprune.ir.outputs import replace_file
    from onnxprune.pages.page import check_installed
    from onnxprune.pages.sweep import sweep_page
    from onnxprune.sweep.picking import linked
    from onnxprune.sweep.summary import rows_of

    check_installed("sweep report")
    store = _opened(given.store)
    if given.output:
        out = check_output(given.output, force=given.force)
    elif store.folder is not None:
        out = store.folder / "report.html"
    else:
        raise OptionError(f"{given.store}: is no folder of this machine: say where the page goes with -o FILE")
    rows = linked(store, rows_of(store), out.parent)
    with replace_file(out) as file:
        file.write(sweep_page(rows, title=given.store, asked=store.asked().get("asked", {})).encode())
    document = {"store": given.store, "tasks": len(rows), "output": str(out)}
    show(document, given, lambda: say(console(), f"{given.store}: {counted(len(rows), 'task')} -> {out}"))


def _opened(root: str) -> Store:
    """A store with results in it.

    Raises:
        OptionError: there is none.
    """
    from onnxprune.sweep.store import Store

    store = Store(root)
    if not store.asked():
        raise OptionError(f"{root}: is no sweep: there is no sweep.json in it; name what a sweep had for -o")
    return store
