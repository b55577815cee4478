"""Patterns: which elements of a layer's matrix may only be kept, or dropped, together, and how many.

A layer is seen as an array [groups, channels, taps, outputs]: groups that the operator keeps apart, the channels that are summed
over, the taps of a kernel (one for a matrix product), and outputs. N:M and blocks run along channels, each tap apart, which is
what sparse tensor cores take (NVIDIA 2020, "Accelerating Inference with Sparsity Using Ampere and TensorRT").
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.options.registries import PATTERNS
from onnxprune.options.sparsify import read_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.ir.weights import Array

__all__ = ["BlockPattern", "Mask", "NofM", "Pattern", "Unstructured", "parse_pattern"]

Mask = npt.NDArray[np.bool_]


class Pattern(ABC):
    """A rule for which weights may be kept. ``str(pattern)`` is how users write it."""

    fixed = False
    """True where the pattern alone says how much is kept."""

    @abstractmethod
    def mask(self, scores: Array, keep: int) -> Mask:
        """The elements that are kept: those with the highest scores that the pattern allows.

        Args:
            scores: not negative; of each element. [groups, channels, taps, outputs]
            keep: how many elements are kept, at most; a pattern that is ``fixed`` takes no notice.

        Returns:
            The same shape. Of equal scores the first in the array is kept.
        """

    @abstractmethod
    def allows(self, kept: Mask) -> bool:
        """Say whether an array with these nonzero elements has the pattern. [groups, channels, taps, outputs]"""

    @abstractmethod
    def most(self, shape: Sequence[int]) -> int:
        """The number of elements of such an array that can be kept, at most."""

    def span(self, channels: int) -> int:
        """The number of channels that are decided upon together."""
        return 1


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any element."""

    def mask(self, scores: Array, keep: int) -> Mask:
        return _highest(scores, keep)

    def allows(self, kept: Mask) -> bool:
        return True

    def most(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape))

    def __str__(self) -> str:
        return "unstructured"


@dataclass(frozen=True)
class NofM(Pattern):
    """At most ``n`` of each ``m`` channels in a row, for each output and tap; what is left at the end counts as filled up with
    zeros.
    """

    n: int
    m: int
    fixed = True

    def mask(self, scores: Array, keep: int) -> Mask:
        cells = self._cells(scores, -1.0)
        order = np.argsort(-cells, 2, kind="stable")
        kept = np.zeros(cells.shape, bool)
        np.put_along_axis(kept, order[:, :, : self.n], True, 2)
        return kept.reshape(kept.shape[0], -1, *kept.shape[3:])[:, : scores.shape[1]]

    def allows(self, kept: Mask) -> bool:
        return int(self._cells(kept, False).sum(2).max(initial=0)) <= self.n

    def most(self, shape: Sequence[int]) -> int:
        groups, channels, taps, outputs = shape
        whole, rest = divmod(channels, self.m)
        return groups * taps * outputs * (whole * self.n + min(rest, self.n))

    def span(self, channels: int) -> int:
        return self.m

    def _cells(self, array: Array, fill: float) -> Array:
        """Cells of channels. [groups, cells, m, taps, outputs]"""
        groups, channels, taps, outputs = array.shape
        padded = np.pad(array, ((0, 0), (0, -channels % self.m), (0, 0), (0, 0)), constant_values=fill)
        return padded.reshape(groups, -1, self.m, taps, outputs)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class BlockPattern(Pattern):
    """Whole blocks of outputs times channels; 0 is all of them.

    Attributes:
        outputs: how many outputs a block has.
        channels: how many channels.
        taps: whether a block has every tap, or one.
    """

    outputs: int
    channels: int
    taps: bool = False

    def mask(self, scores: Array, keep: int) -> Mask:
        sums, sizes = self._sums(scores), self._sums(np.ones_like(scores))
        order = np.argsort(-(sums / sizes).reshape(-1), kind="stable")
        kept = np.zeros(sums.size, bool)
        kept[order] = np.cumsum(sizes.reshape(-1)[order]) <= keep
        return self._spread(kept.reshape(sums.shape), scores.shape)

    def allows(self, kept: Mask) -> bool:
        return True  # a block may hold zeros of its own

    def most(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape))

    def span(self, channels: int) -> int:
        return self.channels or channels

    def _steps(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return self.channels or shape[1], shape[2] if self.taps else 1, self.outputs or shape[3]

    def _sums(self, array: Array) -> Array:
        """The sum of each block. [groups, blocks of channels, blocks of taps, blocks of outputs]"""
        for axis, step in zip((1, 2, 3), self._steps(array.shape), strict=True):
            array = np.add.reduceat(array, np.arange(0, array.shape[axis], step), axis)
        return array

    def _spread(self, blocks: Mask, shape: Sequence[int]) -> Mask:
        for axis, step in zip((1, 2, 3), self._steps(shape), strict=True):
            blocks = np.take(blocks, np.arange(shape[axis]) // step, axis)
        return blocks

    def __str__(self) -> str:
        return _NAMES.get(self, f"{self.outputs}x{self.channels}")


_NAMES = {BlockPattern(0, 1, taps=True): "channel", BlockPattern(1, 0, taps=True): "filter"}


@PATTERNS.register("unstructured")
def _unstructured(text: str) -> Pattern | None:
    """Any weights."""
    return Unstructured() if text == "unstructured" else None


@PATTERNS.register("N:M")
def _n_of_m(text: str) -> Pattern | None:
    """At most N of each M channels that are summed over, as 2:4."""
    n, m = _two_numbers(text, ":")
    return NofM(n, m) if 0 < n < m else None


@PATTERNS.register("RxC")
def _blocks(text: str) -> Pattern | None:
    """Blocks of R outputs and C channels, as 4x1."""
    outputs, channels = _two_numbers(text, "x")
    return BlockPattern(outputs, channels) if outputs and channels else None


@PATTERNS.register("channel")
def _channel(text: str) -> Pattern | None:
    """What all outputs take from one channel."""
    return BlockPattern(0, 1, taps=True) if text == "channel" else None


@PATTERNS.register("filter")
def _filter(text: str) -> Pattern | None:
    """All that one output takes."""
    return BlockPattern(1, 0, taps=True) if text == "filter" else None


def _two_numbers(text: str, sign: str) -> tuple[int, int]:
    """Of ``4x1``, or zeros."""
    found = re.fullmatch(rf"(\d{{1,4}}){sign}(\d{{1,4}})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text is, by what is registered.

    Raises:
        OptionError: it is none.
    """
    found: Pattern = read_pattern(text)
    return found


def _highest(scores: Array, keep: int) -> Mask:
    """The elements with the highest scores, the first of equal ones."""
    flat = scores.reshape(-1)
    keep = max(0, min(keep, flat.size))
    kept = np.zeros(flat.size, bool)
    if keep:
        bound = np.partition(flat, flat.size - keep)[flat.size - keep]
        kept = flat > bound
        equal = np.flatnonzero(flat == bound)
        kept[equal[: keep - np.count_nonzero(kept)]] = True
    return kept.reshape(scores.shape)
