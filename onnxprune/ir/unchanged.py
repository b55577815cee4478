"""Files that are read must stay as they are while a command runs: what is written belongs to the files that were read first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from onnxprune.errors import ChangedError
from onnxprune.ir.folders import model_in

__all__ = ["check_unchanged", "digest_of", "note", "owned", "replaced", "watched"]


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells two states of a file apart, without reading it."""

    device: int
    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, path: str) -> _Stamp | None:
        try:
            found = os.stat(path)  # noqa: PTH116 - a Path would be made for each tensor
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


_files: ContextVar[dict[str, _Stamp | None] | None] = ContextVar("files", default=None)
"""The files that were read, with their first stamps."""
_own: set[str] = set()
"""Folders that are this process's own."""


@contextmanager
def watched() -> Iterator[None]:
    """A context whose files must stay as they are when they are first read; contexts in it share its files.

    Whatever else goes wrong then may come of it, and is not reported.

    Raises:
        ChangedError: a file was changed, replaced or removed; names it.
    """
    if _files.get() is not None:
        yield
        return
    token = _files.set({})
    try:
        yield
        check_unchanged()
    except Exception:
        check_unchanged()
        raise
    finally:
        _files.reset(token)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """A context in which the files of a folder may change as this process likes."""
    name = os.path.realpath(folder) + os.sep
    _own.add(name)
    try:
        yield
    finally:
        _own.discard(name)


def note(path: str | Path) -> None:
    """A file is about to be read.

    Raises:
        ChangedError: it is not what was read before.
    """
    files = _files.get()
    if files is None:
        return
    name = os.path.realpath(path)
    if name.startswith(tuple(_own)):
        return
    stamp = _Stamp.of(name)
    if files.setdefault(name, stamp) != stamp:
        raise _changed(name)


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a file, or of the model in a folder, which is what was read before.

    Raises:
        ChangedError: it is not.
    """
    path = model_in(Path(path))
    note(path)
    found = _digest(path, _Stamp.of(str(path)))
    note(path)
    return found


@lru_cache(maxsize=4)
def _digest(path: Path, stamp: _Stamp | None) -> str:
    """Of a file in a state: several that ask for the same read it once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged() -> None:
    """Nothing happens if all files that were read are what they were.

    Raises:
        ChangedError: one is not.
    """
    for name, stamp in (_files.get() or {}).items():
        if stamp != _Stamp.of(name):
            raise _changed(name)


def replaced(path: Path) -> None:
    """A file was written by this process itself: its first state counts no more."""
    (_files.get() or {}).pop(os.path.realpath(path), None)


def _changed(name: str) -> ChangedError:
    return ChangedError(f"{name}: was changed or replaced while the command ran, and nothing was written: run the command again")
