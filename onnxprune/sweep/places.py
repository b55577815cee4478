"""Where a store lies: a folder of this machine, or any place that fsspec reaches. A file is there whole or not at all.

In a folder, files are written beside their place and renamed. Object stores take a file as one object. Elsewhere a reader may see
a part of a file: what is read is compared with its hash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from onnxprune.errors import InputError, OptionError, OutputError
from onnxprune.ir.outputs import replace_file
from onnxprune.options.sweep import is_remote

__all__ = ["LocalPlace", "Place", "RemotePlace", "place_of"]


class Place(Protocol):
    """A place for files, by names with slashes."""

    root: str

    def read(self, name: str) -> bytes | None:
        """The file; ``None`` where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of one that is there. Raises OutputError."""

    def put(self, name: str, file: Path) -> None:
        """Write a file that lies on this machine. Raises OutputError."""

    def fetch(self, name: str, file: Path) -> bool:
        """Copy a file to this machine; false where there is none."""

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""

    def names(self, folder: str) -> Iterator[str]:
        """The names of all files below a folder, with its name."""


def place_of(root: str) -> Place:
    """The place that a user names.

    Raises:
        OptionError: what reaches it is not installed, or it cannot be reached.
    """
    return RemotePlace(root) if is_remote(root) else LocalPlace(Path(root.removeprefix("file://")))


class LocalPlace:
    """A folder of this machine, or one that several share.

    Attributes:
        root: as text.
        folder: the same as a path.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made yet."""
        self.root, self.folder = str(folder), folder

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        self._write(name, lambda file: file.write(content))

    def put(self, name: str, file: Path) -> None:
        with file.open("rb") as source:
            self._write(name, lambda out: shutil.copyfileobj(source, out, 1 << 20))

    def fetch(self, name: str, file: Path) -> bool:
        try:
            with (self.folder / name).open("rb") as source, replace_file(file) as out:
                shutil.copyfileobj(source, out, 1 << 20)
        except FileNotFoundError:
            return False
        return True

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def names(self, folder: str) -> Iterator[str]:
        for path, _, files in os.walk(self.folder / folder):
            yield from (Path(path, file).relative_to(self.folder).as_posix() for file in files if not file.startswith("."))

    def _write(self, name: str, fill: Callable[[Any], object]) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be made: {error.strerror}") from error
        with replace_file(path) as file:
            fill(file)


class RemotePlace:
    """A place that fsspec reaches.

    Attributes:
        root: its URL.
    """

    def __init__(self, root: str) -> None:
        """Open it.

        Raises:
            OptionError: what reaches it is not installed, or it is no such place.
        """
        if find_spec("fsspec") is None:
            raise OptionError(f'{root}: needs fsspec: run pip install "onnxprune[sweep]", and s3fs or what else reaches it')
        import fsspec

        self.root = root.rstrip("/")
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise OptionError(f"{root}: cannot be reached: {error}") from error

    def read(self, name: str) -> bytes | None:
        with self._telling(OptionError, "read"):
            try:
                content: bytes = self._files.cat_file(self._path(name))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        with self._telling(OutputError, "written"):
            self._files.pipe_file(self._made(name), content)

    def put(self, name: str, file: Path) -> None:
        with self._telling(OutputError, "written"):
            self._files.put_file(str(file), self._made(name))

    def fetch(self, name: str, file: Path) -> bool:
        with contextlib.ExitStack() as stack:
            with self._telling(OptionError, "read"):
                try:
                    source = stack.enter_context(self._files.open(self._path(name), "rb"))
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    return False
            out = stack.enter_context(replace_file(file))
            with self._telling(OptionError, "read"):
                shutil.copyfileobj(source, out, 1 << 20)
        return True

    def has(self, name: str) -> bool:
        with self._telling(OptionError, "read"):
            self._files.invalidate_cache()
            return bool(self._files.isfile(self._path(name)))

    def names(self, folder: str) -> Iterator[str]:
        with self._telling(OptionError, "read"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._path(folder))
            except FileNotFoundError:
                return
        start = len(self._folder.rstrip("/")) + 1
        yield from (path[start:] for path in found)

    def _made(self, name: str) -> str:
        """The path of a file that is written, in a folder that is there."""
        path = self._path(name)
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _telling(self, kind: type[InputError], what: str) -> Iterator[None]:
        """A context in which whatever the place raises is one error: those of each package are others."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise kind(f"{self.root}: cannot be {what}: {' '.join(str(error).split()) or type(error).__name__}") from error
