"""Output files appear whole or not at all, and those of one command together.

An output is written beside its place, as ``.NAME.01234567.part``, and renamed when all outputs of the command are on disk. Its
writer holds a lock on it until then: a part without a lock is of a writer that was killed, and the next one of the same output
removes it. Only regular files are replaced; they keep their mode.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from onnxprune.errors import OnnxPruneError, OutputError
from onnxprune.ir.sudden_end import clean_before_end, whole
from onnxprune.ir.unchanged import check_unchanged, replaced

if sys.platform != "win32":
    import fcntl

__all__ = ["Outputs", "Part", "abandoned_parts", "check_kind", "exclusive", "replace_file", "take_lock", "written"]

_BYTES = 64
"""Of its name that a part begins with: names may be as long as the system allows."""
_KINDS = (
    (stat.S_ISLNK, "a symbolic link: write to another place, or to the file that it leads to"),
    (stat.S_ISDIR, "a folder: name a file in it"),
    (stat.S_ISCHR, "a device, which cannot be replaced by a whole file: write to a file"),
    (stat.S_ISBLK, "a device, which cannot be replaced by a whole file: write to a file"),
    (stat.S_ISFIFO, "a pipe, which cannot be replaced by a whole file: write to a file"),
    (stat.S_ISSOCK, "a socket, which cannot be replaced by a whole file: write to a file"),
)


def check_kind(path: Path) -> None:
    """Nothing happens if there is a regular file, or nothing.

    Raises:
        OutputError: there is something else, which a file must not take the place of.
    """
    if not os.path.lexists(path):
        return
    mode = path.lstat().st_mode
    for is_kind, text in _KINDS:
        if is_kind(mode):
            raise OutputError(f"{path}: is {text}")


class Part:
    """A file that is being written.

    Attributes:
        path: where it will be.
        place: where it is.
        file: to write to.
        around: the context that it is renamed in.
        reserved: whether ``path`` belongs to the next file, and goes with it if that is not put in place.
    """

    def __init__(self, path: Path, suffix: str = ".part") -> None:
        self.path, self.around = path, _plain
        self.reserved = False
        mode = stat.S_IMODE(path.stat().st_mode) & 0o777 if path.exists() else None
        while True:
            self.place = path.with_name(f".{_stem(path)}.{secrets.token_hex(4)}{suffix}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            try:
                number = os.open(self.place, flags, 0o666 if mode is None else 0o600)
            except FileExistsError:
                continue
            take_lock(number)
            if os.fstat(number).st_nlink:
                break
            os.close(number)  # another writer came before the lock, and took it for a dead one's
        self.file: IO[bytes] = os.fdopen(number, "wb")
        if mode is not None:
            self.place.chmod(mode)
        self._withdraw = clean_before_end(self._remove)

    def sync(self) -> None:
        """Everything that was written is then on disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def put(self) -> None:
        """Rename it."""
        if sys.platform == "win32":
            self.file.close()  # there, an open file cannot be renamed
        with self.around():
            self.place.replace(self.path)

    def close(self) -> None:
        """Nothing is left of it, unless it was renamed."""
        self._remove()  # before the lock goes
        self._withdraw()
        with contextlib.suppress(OSError):  # what a full disk did not take was reported before
            self.file.close()

    def _remove(self) -> None:
        if self.reserved:
            self.path.unlink(missing_ok=True)
        self.place.unlink(missing_ok=True)


def _plain() -> AbstractContextManager[None]:
    return nullcontext()


def _stem(path: Path) -> str:
    return os.fsencode(path.name)[:_BYTES].decode(errors="ignore")


class Outputs:
    """The files that a command writes: they appear when the context is left, one right after the other, or none does.

    A kill may come between two renames; where that matters, one file holds a hash of the other.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._folders: dict[Path, Callable[[], None]] = {}

    def folder(self, path: Path) -> None:
        """Make a folder for files of the command, if it is not there; it goes again if they do not appear.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            path.mkdir()
        except FileExistsError:
            return
        except OSError as error:
            raise _told(path, error) from error
        self._folders[path] = clean_before_end(path.rmdir)

    def open(self, path: Path, *, suffix: str = ".part", around: Callable[[], AbstractContextManager[None]] = _plain) -> Part:
        """A file to write, which takes the place of ``path`` in the end; what killed writers left of it goes.

        Args:
            path: where it will be.
            suffix: of its name until then.
            around: gives the context that it is renamed in.

        Raises:
            OutputError: the folder is missing or not writable.
        """
        try:
            for dead in abandoned_parts(path):
                dead.unlink(missing_ok=True)
            part = Part(path, suffix)
        except OSError as error:
            raise _told(path, error) from error
        part.around = around
        self._parts.append(part)
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._publish()
            elif isinstance(error, OSError) and not isinstance(error, OnnxPruneError) and self._parts:
                raise _told(self._parts[-1].path, error) from error
        finally:
            for part in self._parts:
                part.close()
            for folder, withdraw in reversed(self._folders.items()):
                with contextlib.suppress(OSError):  # there are files in it
                    folder.rmdir()
                withdraw()

    def _publish(self) -> None:
        with contextlib.ExitStack() as stack:
            for part in self._parts:
                with _telling(part):
                    part.sync()
            check_unchanged()
            for folder in sorted({part.path.parent for part in self._parts}):
                stack.enter_context(exclusive(folder))
            stack.enter_context(_undisturbed())
            for number, part in enumerate(self._parts):
                with _telling(part):
                    part.put()
                replaced(part.path)
                if number and not part.reserved:
                    self._parts[number - 1].reserved = False


@contextlib.contextmanager
def _telling(part: Part) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _told(part.path, error) from error


def _told(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` when it is whole; an error or a kill leaves ``path`` as it was.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    with Outputs() as outputs:
        yield outputs.open(path).file


def written(path: Path, suffix: str = r"(?:\.data)?\.part") -> re.Pattern[str]:
    """The names of parts of an output."""
    return re.compile(rf"\.{re.escape(_stem(path))}\.[0-9a-z_]{{8}}{suffix}")


def abandoned_parts(path: Path, suffix: str = r"(?:\.data)?\.part") -> Iterator[Path]:
    """The parts of an output whose writers were killed; each stays locked until the next one is asked for."""
    named = written(path, suffix)
    for part in sorted(path.parent.iterdir()):
        if not named.fullmatch(part.name):
            continue
        with contextlib.suppress(OSError):  # gone, or not ours
            number = os.open(part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            if sys.platform == "win32":
                os.close(number)
                yield part
                continue
            try:
                if take_lock(number, wait=False) and stat.S_ISREG(os.fstat(number).st_mode):
                    yield part
            finally:
                os.close(number)


def take_lock(number: int, *, wait: bool = True) -> bool:
    """Lock an open file for this process; false where another has it, or the file system has no locks."""
    if sys.platform == "win32":  # there, a file that is open cannot be removed, which serves as well
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process at a time puts files into the folder, where its file system has locks."""
    if sys.platform == "win32":
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        take_lock(number)
        yield
    finally:
        os.close(number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """INT, TERM and HUP have their effect at the end of the context: they come before all renames, or after all."""
    with whole, _signals_held():
        yield


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which is where signals are handled
        yield
        return
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) not in {signal.SIG_IGN, None}}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in received:
        signal.raise_signal(number)
