"""The process around a command: streams that may be missing or narrow, and signals that end it.

Python handles a signal in its main thread, between two instructions: not while that waits for a compiled library. A second thread
hears of the signal at once. It ends the runs of ONNX Runtime, and the process itself where that was not enough.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from types import FrameType

from onnxprune.ir.sudden_end import end_now
from onnxprune.runtime.stopping import allow_runs, end_runs

__all__ = ["prepare_streams", "stoppable"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_PATIENCE = 1.0
"""Seconds that a command has to unwind after a signal, before the process ends without that."""


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

    Libraries turn an interrupt at an odd moment into errors of their own: whatever comes of it, no traceback is shown. Where one
    swallows it, or computes on, the process ends a second later; temporary files go all the same. Signals that the caller
    ignores, as ``nohup`` does, stay ignored.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:  # it is unwinding, which another exception would disturb
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, stop)
    try:
        with _watched(caught):
            yield
    except BaseException:
        if not received:
            raise
        sys.exit(128 + received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched(numbers: Collection[int]) -> Iterator[None]:
    """After one of these signals the context is left within `_PATIENCE` seconds, or the process ends."""
    hears, tells = socket.socketpair()
    tells.setblocking(False)  # as `signal.set_wakeup_fd` asks
    left = threading.Event()

    def watch() -> None:
        while heard := hears.recv(1):  # each signal that Python handles sends its number
            if heard[0] in numbers:
                end_runs()
                if not left.wait(_PATIENCE):
                    end_now(128 + heard[0])

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        tells.close()
        thread.join()
        hears.close()
        allow_runs()
