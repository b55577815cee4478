"""Temporary folders: each goes with its context, and what killed processes left of theirs goes when the next one is made.

A folder is locked while its process lives. The system takes the lock of a process that is killed, and an unlocked folder of this
name and form is nobody's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from onnxprune.ir.outputs import take_lock
from onnxprune.ir.sudden_end import clean_before_end
from onnxprune.ir.unchanged import owned

__all__ = ["temporary_folder"]

_PREFIX = "onnxprune-temporary-"
_NAMED = re.compile(rf"{_PREFIX}[0-9a-z_]{{8}}")
"""How `tempfile` names folders with the prefix."""
_INNER = "files"
"""All that is in such a folder: what a user keeps under a name like these is not touched."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone when the context is left; where the system has locks, also after a kill, once another is made.

    Raises:
        OSError: there is no place for temporary files.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.callback(clean_before_end(partial(shutil.rmtree, folder, ignore_errors=True)))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            if sys.platform == "win32" or _kept(folder, stack):
                break
        inner = folder / _INNER  # who writes outputs there locks it
        inner.mkdir()
        stack.enter_context(owned(inner))
        yield inner


def _kept(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a folder until the stack ends; false if another process took it for a dead one's before the lock came."""
    try:
        number = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, number)
        take_lock(number)
        return os.path.samestat(os.fstat(number), folder.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(place: Path) -> None:
    """Remove the folders of this user whose processes were killed."""
    if sys.platform == "win32":  # it has no locks on folders
        return
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _NAMED.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # gone meanwhile, or no folder
                    _remove_unless_locked(entry)


def _remove_unless_locked(entry: os.DirEntry[str]) -> None:
    if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    number = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if take_lock(number, wait=False) and {inside.name for inside in Path(entry.path).iterdir()} <= {_INNER}:
            shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(number)
