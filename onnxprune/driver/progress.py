"""The stages of a command: announced when they begin, and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from onnxprune.passes.base import Progress, silent

__all__ = ["Phase", "Stages"]


class Phase(str):
    """What is being done from now on, as text, with the name of the phase that it begins: for callers who show more than text."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, text: str, name: str) -> Self:
        """The text of the phase with a name."""
        made = super().__new__(cls, text)
        made.name = name
        return made


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
        self.tell(Phase(text, name))
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
