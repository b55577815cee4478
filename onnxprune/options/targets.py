"""What is asked for, read from text: how much remains, how sparse or large a model must be, what widths are multiples of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnxprune.errors import OptionError

__all__ = ["BLOCKS", "METRICS", "Align", "Goal", "Target", "by_layer", "number"]

METRICS = ("latency", "macs", "params", "size", "channels")
"""What a `Target` is a fraction of."""
BLOCKS = 4
"""Steps that a layer can be cut in, at least, where alignment adapts."""
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_GOALS = "sparsity=0.8, threshold=1.0, size=2MB, size=0.3 (of the original file), gzip=1.5MB, latency=0.4"


def number(value: float) -> str:
    """A number in as few digits as give it back exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def by_layer(texts: Iterable[str], says: str, holds: Callable[[float], bool]) -> tuple[tuple[str, float], ...]:
    """Read ``GLOB=0.5`` of each text.

    Args:
        texts: what is given for ``--layer``.
        says: what to write.
        holds: tells if a number has sense.

    Raises:
        OptionError: one is no glob with such a number.
    """
    found = []
    for text in texts:
        glob, equals, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not glob or not equals or not holds(value):
            raise OptionError(f"--layer {text!r}: write {says}")
        found.append((glob, value))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Target:
    """What remains, as a fraction of the original; ``str(target)`` is how it is written."""

    metric: str
    fraction: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``macs=0.5``.

        Raises:
            OptionError: no such metric, or no fraction above 0 and up to 1.
        """
        metric, equals, value = (part.strip() for part in text.partition("="))
        if not equals or metric not in METRICS:
            raise OptionError(f"target {text!r}: write one of {', '.join(f'{t}=0.5' for t in METRICS)}")
        try:
            fraction = float(value)
        except ValueError:
            fraction = math.nan
        if not 0 < fraction <= 1:
            raise OptionError(f"target {text!r}: give the fraction that remains, above 0 and at most 1, as {metric}=0.5")
        return cls(metric, fraction)

    @property
    def timed(self) -> bool:
        """Whether it is met by measuring, not by counting."""
        return self.metric == "latency"

    def __str__(self) -> str:
        return f"{self.metric}={number(self.fraction)}"


@dataclass(frozen=True, slots=True)
class Align:
    """What widths are multiples of; ``str(align)`` is how it is written.

    Attributes:
        channels: the multiple.
        least: a layer with fewer than ``BLOCKS`` of these gets half the multiple, and so on, but no less than this; 0 for the
            same multiple everywhere.
    """

    channels: int
    least: int = 0

    @classmethod
    def parse(cls, text: str) -> Align:
        """Read ``auto``, ``1`` or ``N``.

        ``auto`` is 16, the block of ONNX Runtime's fast convolution kernels; narrow layers, to which one block more or less is
        everything, get finer steps: down to 4, below which those kernels do not run. See also `suited`.

        Raises:
            OptionError: neither.
        """
        if text == "auto":
            return cls(16, 4)
        if not re.fullmatch(r"[1-9]\d{0,4}", text):
            raise OptionError(f"align {text!r}: write auto, 1 or a number of channels")
        return cls(int(text))

    def suited(self, *, timed: bool) -> Align:
        """The same where prices are ``timed``: these tell what a whole block is worth, and ``auto`` is 4 everywhere."""
        return Align(self.least) if timed and self.least else self

    def of(self, width: int) -> int:
        """What the width of a layer that has so many channels is a multiple of."""
        step = self.channels
        while self.least and step // 2 >= self.least and BLOCKS * step > width:
            step //= 2
        return step

    @property
    def told(self) -> str:
        """In words, for messages."""
        return f"{self.channels}, in narrow layers {self.least}" if self.least else f"{self.channels}"

    def __str__(self) -> str:
        return "auto" if self.least else f"{self.channels}"


@dataclass(frozen=True, slots=True)
class Goal:
    """How sparse, or how large, a model must be; ``str(goal)`` is how it is written.

    Attributes:
        metric: ``sparsity``, the share of zeros in the layers that may be sparse; ``threshold``, the magnitude below which
            weights go, in standard deviations of their layer; ``size``, the bytes of the file; ``gzip``, its bytes after gzip;
            ``latency``, its time.
        value: the number; of sizes bytes, or below 1 a fraction of the original's; of latency such a fraction.
    """

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read ``sparsity=0.8``, ``threshold=1.5``, ``size=2MB``, ``gzip=0.3``, ``latency=0.4``.

        Raises:
            OptionError: none of these.
        """
        metric, _, digits = (part.strip() for part in text.partition("="))
        found = re.fullmatch(r"(\d+\.?\d*(?:e[-+]?\d+)?|\.\d+)\s*([kKMG]?i?B?)", digits)
        sized = metric in {"size", "gzip"}
        known = sized or metric in {"sparsity", "threshold", "latency"}
        if not known or not found or found[2] not in _UNITS or (found[2] and not sized):
            raise OptionError(f"target {text!r}: write one of {_GOALS}")
        value = float(found[1]) * _UNITS[found[2]]
        if metric == "sparsity" and not 0 <= value < 1:
            raise OptionError(f"target {text!r}: a sparsity is the share of zeros, at least 0 and below 1, as sparsity=0.8")
        if metric == "latency" and not 0 < value <= 1:
            raise OptionError(
                f"target {text!r}: give the fraction of the time that remains, above 0 and at most 1, as latency=0.4"
            )
        if not math.isfinite(value) or (sized and value <= 0):
            raise OptionError(f"target {text!r}: write one of {_GOALS}")
        return cls(metric, value)

    def __str__(self) -> str:
        return f"{self.metric}={number(self.value)}"
