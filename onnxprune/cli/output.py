"""What commands print: tables or JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer

from onnxprune.errors import ReportError
from onnxprune.runtime.threads import threads

__all__ = ["SCHEMA", "as_json_file", "envelope", "fail", "progress", "show", "strict", "told", "warn"]

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


def show(document: dict[str, Any], as_json: bool, draw: Callable[[], None]) -> None:
    """Print for machines or for people; machines are told with how many threads it was computed, too.

    Raises:
        ReportError: stdout takes nothing more.
    """
    try:
        if as_json:
            typer.echo(json.dumps({**envelope(), "threads": threads(), **strict(document)}, allow_nan=False))
        else:
            draw()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there when Python ends
        raise ReportError(f"the report cannot be printed: {error.strerror}; files that were asked for are written") from error


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
    typer.echo(f"onnxprune: {_line(text)}", err=True)
    told(text, status, kind)
    sys.exit(status)


def told(text: str, status: int, kind: str) -> None:
    """Print an error as a document, if the command line asks for one."""
    if "--json" in sys.argv[1:]:
        failure = {"type": kind, "message": _line(text), "exit_status": status}
        with suppress(OSError, ValueError):  # stdout may be what failed
            typer.echo(json.dumps({**envelope(), "failure": failure}))
            sys.stdout.flush()


def envelope() -> dict[str, str]:
    """What every document begins with: the version of its schema, the command, and the version of the program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("onnxprune")
    except PackageNotFoundError:  # run from a checkout
        number = "unknown"
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return {"schema": SCHEMA, "command": named, "version": number}


def _line(text: str) -> str:
    from onnxprune.cli.console import escaped

    return escaped(" ".join(text.split()))
