"""What commands print: tables or JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from onnxprune.errors import ReportError
from onnxprune.runtime.threads import threads

__all__ = ["as_json_file", "fail", "progress", "show", "strict", "warn"]


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
            typer.echo(json.dumps({"threads": threads(), **strict(document)}, allow_nan=False))
        else:
            draw()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there when Python ends
        raise ReportError(f"the report cannot be printed: {error.strerror}; files that were asked for are written") from error


@contextmanager
def progress(text: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being done; nothing where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda description: bar.update(task, description=description)


def warn(text: str) -> list[str]:
    """Say in one line, if at all, what may not be as the user thinks; also for a report."""
    if text:
        typer.echo(f"onnxprune: warning: {_line(text)}", err=True)
    return [text] if text else []


def fail(text: str, status: int) -> NoReturn:
    """Say in one line what went wrong, and exit."""
    typer.echo(f"onnxprune: {_line(text)}", err=True)
    sys.exit(status)


def _line(text: str) -> str:
    from onnxprune.cli.console import escaped

    return escaped(" ".join(text.split()))
