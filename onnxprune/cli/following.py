"""Progress, for people: which phase of how many, a bar, seconds left; without a terminal lines, at least every 15 s."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from onnxprune.driver.progress import Phase

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Follower", "Position"]

EVERY = 15.0
"""Seconds between two lines of one phase."""
_COUNTED = re.compile(r"\(?(\d+)(?: of |/)(\d+)\)?")
"""How texts count their steps: ``repairing (3 of 17)``, ``epoch 2/10``."""


class Position:
    """Where a command is.

    Attributes:
        number: of the phase, from 1.
        total: how many phases there are; 0 where that is not known.
        text: what is being done.
        share: of the phase that is done, where its steps are counted.
    """

    def __init__(self, text: str, phases: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            text: what is done first.
            phases: the names of those that are expected, in order; empty where that is not known.
            clock: gives seconds.
        """
        self._names, self._clock = ["", *phases], clock
        self._seen = [""]
        self.number, self.total = 1, len(self._names) if phases else 0
        self.text, self.share, self._begun = text, 0.0, clock()

    def tell(self, text: str) -> str:
        """Take in what is being done now; returns the line about the phase that is over, empty if none is."""
        over = ""
        if isinstance(text, Phase) and text.name not in self._seen[-1:]:
            if self._seen.count(self._seen[-1]) == 1:  # searches go through some phases many times
                over = f"{self}, {self.seconds:.1f} s"
            self._seen.append(text.name)
            at = self._names.index(text.name) + 1 if text.name in self._names else 0 if self.total else len(set(self._seen))
            self.number = max(self.number, at)
            self._begun, self.share = self._clock(), 0.0
        found = _COUNTED.search(text)
        if found and int(found[2]):
            self.share = min(max(int(found[1]) - 1, 0) / int(found[2]), 1.0)
        self.text = str(text)
        return over

    @property
    def seconds(self) -> float:
        """Since the phase began."""
        return self._clock() - self._begun

    @property
    def left(self) -> float | None:
        """Seconds that the phase takes yet, about; ``None`` where nothing tells."""
        return self.seconds / self.share * (1 - self.share) if self.share > 0 else None

    @property
    def done(self) -> float:
        """The share of all phases that is done."""
        return (self.number - 1 + self.share) / self.total if self.total else self.share

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total else ""
        return f"phase {self.number}{of}: {self.text}"


class Follower:
    """Shows where a command is, on stderr; a context, whose ``tell`` takes what is being done."""

    def __init__(self, text: str, phases: Sequence[str] = ()) -> None:
        """Nothing is shown yet."""
        self._position = Position(text, phases)
        self._bar: Progress | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)
            self._draw()
        else:
            self._thread = threading.Thread(target=self._remind, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            return
        self._over.set()
        self._thread.join()
        if error is None:
            self._line(f"{self._position}, {self._position.seconds:.1f} s")

    def tell(self, text: str) -> None:
        """Show what is being done."""
        with self._lock:
            over = self._position.tell(text)
        if self._bar is not None:
            self._draw()
        elif over:
            self._line(over)

    def _draw(self) -> None:
        assert self._bar is not None  # noqa: S101 - there is one on a terminal
        place, left = self._position, self._position.left
        told = "" if left is None else f"{left:.0f} s left"
        self._bar.update(self._task, completed=place.done, description=str(place), left=told)

    def _remind(self) -> None:
        while not self._over.wait(EVERY):
            with self._lock:
                place = self._position
                left = "" if place.left is None else f", about {place.left:.0f} s left"
                self._line(f"{place}, {place.seconds:.0f} s so far{left}")

    def _line(self, text: str) -> None:
        typer.echo(f"onnxprune: {text}", err=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    told = Column(no_wrap=True, overflow="crop", ratio=1)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=told),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, expand=True)
