"""What was written, and what was not, when a command is interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

__all__ = ["accounted"]

_OUTPUTS = ("output", "plan_out", "plot", "report")
"""Options that name files which a command writes."""
_SIGNALLED = 128
"""The status of a command that a signal ends is this and the number of the signal."""


@contextmanager
def accounted(given: Mapping[str, Any]) -> Iterator[None]:
    """A context that says, when INT, TERM or HUP ends it, which output files are there, and how to go on.

    Args:
        given: the options of the command.
    """
    paths = [Path(given[name]) for name in _OUTPUTS if given.get(name)]
    before = {path: _state(path) for path in paths}
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or (isinstance(end.code, int) and end.code > _SIGNALLED):
            text = "; ".join(_told(path, before[path]) for path in paths) or _untold(given)
            with suppress(OSError, ValueError):  # stderr may be gone
                typer.echo(f"onnxprune: interrupted: {text}{_way_on(given)}", err=True)
        raise


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; ``None`` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _told(path: Path, before: tuple[int, int, int] | None) -> str:
    if path.is_dir():
        return f"{path} has the files that were finished, whole"
    if _state(path) != before:
        return f"{path} was written, whole"
    return f"{path} was not written" if before is None else f"{path} is as it was"


def _untold(given: Mapping[str, Any]) -> str:
    """What is said of a command that names no file to write."""
    return f"{given['store']} has the results that were finished, whole" if given.get("store") else "no output was written"


def _way_on(given: Mapping[str, Any]) -> str:
    """What is kept of the work."""
    for name in ("resume", "keep"):
        if given.get(name) and Path(given[name]).exists():
            return f"; {given[name]} keeps what is done: repeat the command to go on"
    return ": repeat the command to go on" if given.get("store") else ""
