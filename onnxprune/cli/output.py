"""What commands print: tables or JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from onnxprune.errors import ReportError
from onnxprune.options.commands import Prints, Run, Writes
from onnxprune.options.documents import strict
from onnxprune.options.version import version
from onnxprune.runtime.threads import threads

if TYPE_CHECKING:
    from onnxprune.driver.destination import Destination
    from onnxprune.ir.model import Model
    from onnxprune.ir.outputs import Outputs

__all__ = [
    "SCHEMA",
    "as_json_file",
    "check_page",
    "complain",
    "destination",
    "envelope",
    "fail",
    "failure",
    "progress",
    "show",
    "told",
    "told_options",
    "warn",
    "write",
]

SCHEMA = "onnxprune/1"
"""The version of what `--json` prints: `docs/report.schema.json`. Keys may be added within a version, and none changes."""

_OPTIONS: ContextVar[Mapping[str, Any]] = ContextVar("options", default=MappingProxyType({}))
"""Of the command that runs."""


@contextmanager
def told_options(given: Mapping[str, Any]) -> Iterator[None]:
    """A context in which documents have the options of the command, by the names of their fields."""
    texts = {name: [str(item) for item in value] if isinstance(value, list) else value for name, value in given.items()}
    token = _OPTIONS.set({name: str(value) if isinstance(value, Path) else value for name, value in texts.items()})
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def as_json_file(document: dict[str, Any]) -> bytes:
    """A document as the text of a file."""
    return json.dumps(strict(document), indent=1, allow_nan=False).encode() + b"\n"


def show(document: dict[str, Any], given: Prints, draw: Callable[[], None]) -> None:
    """Print for machines or for people; before that, write the page and log the run that were asked for.

    Machines are also told the options and the number of threads. A run that cannot be logged ends the command after the report.

    Raises:
        OutputError: the page cannot be written.
        ReportError: stdout takes nothing more.
    """
    whole = {**envelope(), "threads": threads(), "options": dict(_OPTIONS.get()), **strict(document)}
    if given.report:
        _write_page(whole, given.report)
    if isinstance(given, Writes | Run) and given.mlflow:
        whole |= _logged(whole, given.mlflow)
    try:
        if given.as_json:
            typer.echo(json.dumps(whole, allow_nan=False))
        else:
            draw()
            if "mlflow" in whole:
                typer.echo(
                    f"logged: {whole['mlflow'].get('url', 'run {run} of experiment {experiment}'.format(**whole['mlflow']))}"
                )
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there when Python ends
        raise ReportError(f"the report cannot be printed: {error.strerror}; files that were asked for are written") from error
    if "failure" in whole and isinstance(given, Writes | Run):
        complain(whole["failure"]["message"])
        sys.exit(whole["failure"]["exit_status"])


def _logged(whole: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """Where a run was logged, or why not, as a part of a document."""
    from onnxprune.driver.tracking import log_run

    try:
        return {"mlflow": log_run(whole, uri)}
    except ReportError as error:
        return {"failure": failure(str(error), error.exit_status, type(error).__name__)}


def check_page(file: Path, *, force: bool) -> None:
    """Nothing happens if a page can be written to a file.

    Raises:
        OptionError: a package for pages is not installed.
        OutputError: the file is there, or its folder is not.
    """
    from onnxprune.ir.files import check_output
    from onnxprune.pages.page import check_installed

    check_installed()
    check_output(file, force=force)


def _write_page(document: dict[str, Any], file: Path) -> None:
    from onnxprune.ir.outputs import replace_file

    with replace_file(file) as out:
        out.write(_page(document).encode())


def _page(document: dict[str, Any]) -> str:
    """The page of a command: of one model, or of the results of a sweep."""
    rows = document.get("rows") or document.get("picked")
    if document["command"] == "sweep" and rows:
        from onnxprune.pages.sweep import sweep_page

        unlinked = [{**row, "report": ""} for row in rows]  # `sweep report` knows where reports lie as seen from its page
        return sweep_page(unlinked, title=document["store"], asked=document.get("asked") or {})
    from onnxprune.pages.contents import changed
    from onnxprune.pages.page import page
    from onnxprune.pages.thumbnails import thumbnails

    # A recipe says which samples judge, and its command does not.
    given = {**document["options"], **document.get("judges", {})}
    return page(document, _command(), thumbnails(given, [one["sample"] for one in changed(document)]))


def _command() -> str:
    """The command, to be copied."""
    return shlex.join(["onnxprune", *sys.argv[1:]])


def destination(given: Writes, *inputs: Path) -> Destination:
    """Where a command writes its model.

    Args:
        given: the command.
        inputs: what it reads beside its model.

    Raises:
        OutputError: nothing may be written there.
    """
    from onnxprune.driver.destination import Destination

    return Destination.of(given.output, given.model, inputs=inputs, force=given.force)


def write(made: Model, given: Writes, told: Mapping[str, Any], outputs: Outputs | None = None) -> str:
    """Write a model with what belongs to it, and say what its user should know of that.

    Args:
        made: the model.
        given: the command.
        told: what it found.
        outputs: with which the files appear; at once if there are none.

    Returns:
        The SHA-256 of the file with the graph.

    Raises:
        OutputError: the disk is full or the folder not writable; or there is a file by now.
    """
    saved = destination(given).save(made, told, outputs=outputs, command=_command())
    for text in saved.notes:
        warn(text)
    return saved.sha256


@contextmanager
def progress(text: str, *, quiet: bool, phases: Sequence[str] = ()) -> Iterator[Callable[[str], None]]:
    """Where a command is, see `onnxprune.cli.following`; nothing for machines.

    Args:
        text: what is done first.
        quiet: whether nothing is shown.
        phases: the names of the phases, in order; empty where that is not known.
    """
    if quiet:
        yield lambda _: None
        return
    from onnxprune.cli.following import Follower

    with Follower(text, phases) as follower:
        yield follower.tell


def warn(text: str) -> list[str]:
    """Say in one line, if at all, what may not be as the user thinks; also for a report."""
    if text:
        typer.echo(f"onnxprune: warning: {_line(text)}", err=True)
    return [text] if text else []


def fail(text: str, status: int, kind: str) -> NoReturn:
    """Say in one line what went wrong, for machines in a document too, and exit.

    Args:
        text: what went wrong.
        status: to exit with.
        kind: the name of the exception.
    """
    complain(text)
    told(text, status, kind)
    sys.exit(status)


def complain(text: str) -> None:
    """Say in one line what went wrong."""
    typer.echo(f"onnxprune: {_line(text)}", err=True)


def failure(text: str, status: int, kind: str) -> dict[str, Any]:
    """What went wrong, as a part of a document."""
    return {"type": kind, "message": _line(text), "exit_status": status}


def told(text: str, status: int, kind: str) -> None:
    """Print an error as a document, if the command line asks for one."""
    if "--json" in sys.argv[1:]:
        with suppress(OSError, ValueError):  # stdout may be what failed
            typer.echo(json.dumps({**envelope(), "failure": failure(text, status, kind)}))
            sys.stdout.flush()


def envelope() -> dict[str, str]:
    """What every document begins with: the version of its schema, the command, and the version of the program."""
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return {"schema": SCHEMA, "command": named, "version": version()}


def _line(text: str) -> str:
    from onnxprune.cli.console import escaped

    return escaped(" ".join(text.split()))
