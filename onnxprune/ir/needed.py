"""The data file of a model that is replaced goes, unless something may need it; in doubt it stays.

It goes if all of this holds:

- it is a regular file in the folder of the model, and named as this program names data files (``out.onnx.data``);
- no other file in that folder holds its name: a copy of the model may be called ``out.onnx.bak``;
- no model (``*.onnx``) in a folder above holds its name, and neither does the model that the new one was made from;
- no symbolic link in the folder, or in a folder below, leads to it;
- there are not so many files to look at that this would take long.

Hard links need nothing: they are the file. Links from anywhere else cannot be found.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from onnxprune.ir.model import data_files
from onnxprune.ir.outputs import Part, abandoned_parts, written

__all__ = ["remove_abandoned", "retired"]

_GRAPH = 2**28
"""Bytes from which a file is not taken for the graph of a model in two files."""
_MODEL = 2**31
"""Bytes that no file with a model has: that is what protobuf can read."""
_LOOKED_AT = 2**33
"""Bytes of files that are looked at."""
_ENTRIES = 200_000
"""Entries of folders that are looked at."""


def _own_data(graph: Path, path: Path) -> list[Path]:
    """The data files that a graph names, and that this program wrote for a model at some path."""
    named = _names(path)
    files = (data for data in data_files(graph) if data.parent == path.parent and named.fullmatch(data.name))
    return [data for data in files if os.path.lexists(data) and stat.S_ISREG(data.lstat().st_mode)]


def _names(path: Path) -> re.Pattern[str]:
    """The names of data files of a model."""
    return re.compile(re.escape(path.name) + r"(\.\d+)?\.data")


@contextlib.contextmanager
def retired(path: Path, source: Path) -> Iterator[None]:
    """A context that a model is replaced in: the data of the old one goes with it, unless something may need it.

    A copy of the old graph is there until then. If this process is killed, the next one knows by it which files are left.

    Args:
        path: of the model.
        source: the model that the new one was made from.
    """
    old = _own_data(path, path)
    if not old:
        yield
        return
    grave = Part(path)
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, grave.file)
        grave.sync()
        yield
        _remove_unneeded(old, path, [grave.place, path], [source] if source != path else [])
    finally:
        grave.close()


def remove_abandoned(path: Path) -> None:
    """Remove what killed writers of a model left: parts, and the data that belongs to them alone."""
    with contextlib.suppress(OSError):
        for part in abandoned_parts(path):
            if part.stat().st_size < _GRAPH and not part.name.endswith(".data.part"):
                _remove_unneeded(_own_data(part, path), path, [part], [])
            part.unlink(missing_ok=True)


def _remove_unneeded(old: list[Path], path: Path, apart: list[Path], more: list[Path]) -> None:
    """Remove data files of a model that nothing needs, leaving some files out of account."""
    for data in old:
        if not _needed(data, path, apart, more):
            with contextlib.suppress(OSError):
                data.unlink()


def _needed(data: Path, path: Path, apart: list[Path], more: list[Path]) -> bool:
    """Tell whether something may need a file, or there is too much to look at."""
    try:
        return any(_mentions(one, data.name) for one in [*_candidates(data, path, apart), *more]) or _linked(data)
    except (OSError, _TooMuchError):
        return True


class _TooMuchError(Exception):
    """There is more to look at than is worth it."""


def _candidates(data: Path, path: Path, apart: list[Path]) -> Iterator[Path]:
    """Files that may hold the graph of a model that names a data file."""
    folder = path.parent.resolve()
    own, parts = _names(path), written(path, r"\.data\.part")
    entries, size, hidden = 0, 0, {one.name for one in apart}
    for place in (folder, *folder.parents):
        if place != folder and not os.access(place, os.R_OK):
            continue
        for name in os.listdir(place):  # noqa: PTH208 - names alone are needed of most
            entries += 1
            if place == folder:
                skipped = bool(own.fullmatch(name) or parts.fullmatch(name)) or name in hidden
            else:
                skipped = not name.lower().endswith(".onnx")
            one = place / name
            if entries > _ENTRIES:
                raise _TooMuchError
            if skipped or not one.is_file() or one.stat().st_size >= _MODEL:
                continue
            size += one.stat().st_size
            if size > _LOOKED_AT:
                raise _TooMuchError
            yield one


def _linked(data: Path) -> bool:
    """Tell whether a symbolic link in the folder of a file, or below, leads to it."""
    target, entries = data.resolve(), 0
    for place, folders, files in os.walk(data.parent):
        entries += len(folders) + len(files)
        if entries > _ENTRIES:
            raise _TooMuchError
        if any(os.path.realpath(link) == str(target) for link in (Path(place, name) for name in files) if link.is_symlink()):
            return True
    return False


def _mentions(path: Path, name: str) -> bool:
    """Tell whether a file holds a name, or cannot be searched for it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(os.fsencode(name)) >= 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # an empty file cannot be mapped
        return path.is_file() and path.stat().st_size > 0
