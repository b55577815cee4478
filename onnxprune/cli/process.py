"""The process around a command: streams that may be missing or narrow, and signals that end it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

__all__ = ["prepare_streams", "stoppable"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def prepare_streams() -> None:
    """Give the process its three streams, and let them print every name.

    A stream that the caller closed becomes the null device: otherwise the next file that is opened would take its number, and
    get what is printed. Characters that the encoding of the terminal lacks are printed as escapes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A context that INT, TERM and HUP leave by unwinding, so that no temporary file stays; the status is 128 and the number.

    Libraries turn an interrupt at an odd moment into errors of their own: whatever comes of it, no traceback is shown. Signals
    that the caller ignores, as ``nohup`` does, stay ignored.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    except BaseException:
        if not received:
            raise
        sys.exit(128 + received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
