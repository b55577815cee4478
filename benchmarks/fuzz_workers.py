"""Commands in processes of their own, forked from one that has everything imported, with limits and a watch."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MEGABYTES", "SECONDS", "Outcome", "command", "forked"]

SECONDS = 30
"""Of computing that a command may take."""
PATIENCE = 150.0
"""Seconds by the clock: other programs may have the processor."""
MEGABYTES = 1024
STATUSES = frozenset({0, 1, 2})


_ASIDE = ("onnxprune: warning: ", "onnxprune: phase ")
"""Lines on stderr beside the one of a refusal."""


@dataclass
class Outcome:
    """What came of a command.

    Attributes:
        status: the exit status; minus the number of the signal that ended it.
        megabytes: the most that it had in memory.
        out: what it printed.
        err: what it said on stderr.
        wrong: what a check found.
    """

    status: int
    megabytes: int
    out: str
    err: str
    wrong: str = ""

    @property
    def finding(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.megabytes > MEGABYTES:
            return "memory"
        if self.status in {-signal.SIGXCPU, -signal.SIGKILL}:
            return "hang"
        if self.status < 0:
            return f"crash {-self.status}"
        if "Traceback" in self.err:
            return "traceback"
        if self.status not in STATUSES:
            return f"exit {self.status}"
        if self.status == 2 and sum(not line.startswith(_ASIDE) for line in self.err.splitlines()) != 1:
            return "lines of a refusal"
        if "\x1b" in self.out + self.err:
            return "escape"
        return self.wrong


def command(args: tuple[str, ...], settings: dict[str, str] | None = None) -> Outcome:
    """Run a command of onnxprune in the working directory.

    Args:
        args: of the command.
        settings: variables of its environment.
    """

    def run() -> None:
        from onnxprune.__main__ import main

        os.environ.update(settings or {})
        tempfile.tempdir = None
        sys.argv = ["onnxprune", *args]
        main()

    return forked(run)


def forked(function: Callable[[], object], ended: tuple[int, float] | None = None) -> Outcome:
    """Call a function in a child process, within the limits; a crash there is an outcome like others.

    Args:
        function: to call.
        ended: a signal that the child is sent, and after how many seconds.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _be(function, out.fileno(), err.fileno())
        status, used = _waited(child, ended)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(1 << 16).decode("utf-8", "replace"))
    return Outcome(status, used, *texts)


def _be(function: Callable[[], object], out: int, err: int) -> None:
    """Become a function; never returns."""
    status = 0
    try:
        os.setsid()
        for number, stream in enumerate((os.open(os.devnull, os.O_RDWR), out, err)):
            os.dup2(stream, number)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 31, 1 << 31))
        function()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - whatever comes of a command is what is looked for
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _waited(child: int, ended: tuple[int, float] | None) -> tuple[int, int]:
    """The exit status of a child and the megabytes it took; it is killed when its time is over, or its memory full."""
    start, pause = time.monotonic(), 0.001
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss >> 10
        if time.monotonic() - start > PATIENCE or _resident(child) > 2 * MEGABYTES:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            return -signal.SIGKILL, used.ru_maxrss >> 10
        if ended and time.monotonic() - start >= ended[1]:
            os.kill(child, ended[0])
            ended = None
        time.sleep(pause if ended is None else min(pause, max(start + ended[1] - time.monotonic(), 0)))
        pause = min(pause * 1.5, 0.05)


def _resident(child: int) -> int:
    """Megabytes that a process has in memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{child}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, ValueError, IndexError):
        return 0
