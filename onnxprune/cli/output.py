"""What commands print: tables or JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from onnxprune.errors import ReportError
from onnxprune.options.commands import Prints, Replaces, Writes
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
    "strict",
    "told",
    "warn",
    "write",
]

SCHEMA = "onnxprune/1"
"""The version of what `--json` prints: `docs/report.schema.json`. Keys may be added within a version, and none changes."""


def as_json_file(document: dict[str, Any]) -> bytes:
    """A document as the text of a file."""
    return json.dumps(strict(document), indent=1, allow_nan=False).encode() + b"\n"


def strict(value: Any) -> Any:
    """Data that JSON can spell: what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(document: dict[str, Any], given: Prints, draw: Callable[[], None]) -> None:
    """Print for machines or for people, and write the page that was asked for; machines are told the number of threads, too.

    Raises:
        OutputError: the page cannot be written.
        ReportError: stdout takes nothing more.
    """
    whole = {**envelope(), "threads": threads(), **strict(document)}
    if isinstance(given, Replaces) and given.report:
        _write_page(whole, given.report)
    try:
        if given.as_json:
            typer.echo(json.dumps(whole, allow_nan=False))
        else:
            draw()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there when Python ends
        raise ReportError(f"the report cannot be printed: {error.strerror}; files that were asked for are written") from error


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
    from onnxprune.pages.page import page

    with replace_file(file) as out:
        out.write(page(document, _command()).encode())


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
