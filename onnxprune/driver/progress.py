"""The stages of a command: announced when they begin, and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.passes.base import Progress, silent

__all__ = ["Stages"]


class Stages:
    """Times stages and announces them.

    Attributes:
        seconds: wall time by the name of the stage, in the order in which they began.
        tell: is told what begins.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.tell: Progress = progress or silent

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        self.tell(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
