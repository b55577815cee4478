"""Functions that tests of engines have called in other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from onnxprune.errors import OptionError


class AwkwardError(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def square(number: int) -> int:
    return number * number


def refuse(text: str) -> None:
    raise OptionError(text)


def be_awkward() -> None:
    raise AwkwardError("not", "made again")


def leave() -> None:
    sys.exit(3)


def process() -> int:
    return os.getpid()


def noted(folder: str, name: str, seconds: float = 0.0) -> str:
    """Note that it was called, and how often; then wait."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return name


def die(folder: str = "", name: str = "") -> None:
    """Be killed; with a folder, note it before."""
    if folder:
        noted(folder, name)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder: str) -> str:
    """Be killed at the first call."""
    if not (Path(folder) / "died").exists():
        die(folder, "died")
    return "done"


def span(seconds: float) -> tuple[float, float]:
    """When it began and ended, by the clock of the machine."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def hang(folder: str) -> None:
    """Note that it was called, and never end."""
    noted(folder, "hangs")
    while True:
        time.sleep(1)


def grow(megabytes: int) -> int:
    """Keep that much memory, for longer than a second; the process."""
    kept.append(b"x" * (megabytes << 20))
    time.sleep(1.5)
    return os.getpid()


kept: list[bytes] = []


def environment() -> dict[str, str]:
    """The environment that the process had before it loaded anything."""
    text = Path("/proc/self/environ").read_text("utf-8")
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
