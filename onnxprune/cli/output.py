"""What commands print: tables or JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

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
    """Print for machines or for people."""
    if as_json:
        typer.echo(json.dumps(strict(document), allow_nan=False))
    else:
        draw()


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
        typer.echo(f"onnxprune: warning: {' '.join(text.split())}", err=True)
    return [text] if text else []


def fail(text: str, status: int) -> NoReturn:
    """Say in one line what went wrong, and exit."""
    typer.echo(f"onnxprune: {' '.join(text.split())}", err=True)
    sys.exit(status)
