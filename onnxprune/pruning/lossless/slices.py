"""Slices of a tensor along one axis: digests that tell which are equal, and bounds of their entries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.pruning.lossless.hashing import Digests, bits, joined, named, numbers, rows

if TYPE_CHECKING:
    from onnxprune.axes.equation import Block
    from onnxprune.ir.weights import Array, Flags, Floats

__all__ = ["Slices", "by_digits", "concatenated", "content", "of_constant"]


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """The slices of a value along an axis: one for each index.

    Attributes:
        digest: equal where slices are equal on every input. [n]
        low: no entry of the slice is less. [n]
        high: no entry of the slice is greater. [n]
    """

    digest: Digests
    low: Floats
    high: Floats

    @classmethod
    def of(cls, digest: Digests, low: Floats, high: Floats) -> Slices:
        """Slices of one number have the digest of that number."""
        same = (low == high) & np.isfinite(low)
        return cls(np.where(same, numbers(low), digest), low, high)

    @classmethod
    def unknown(cls, digest: Digests) -> Slices:
        """No bounds."""
        return cls(digest, np.full(len(digest), -np.inf), np.full(len(digest), np.inf))

    @property
    def constant(self) -> Flags:
        """True where every entry of the slice is the same known number. [n]"""
        return np.asarray((self.low == self.high) & np.isfinite(self.low))

    @property
    def zero(self) -> Flags:
        return np.asarray((self.low == 0) & (self.high == 0))

    def part(self, start: int, stop: int) -> Slices:
        return Slices(self.digest[start:stop], self.low[start:stop], self.high[start:stop])


def by_digits(slices: Slices, part: Block, block: Block, sizes: Mapping[str, int]) -> Slices:
    """Slices along the letters of ``part``, by the digits of ``block``: letters of it that ``part`` lacks repeat, others join.

    From the slices along ``(g i)`` those by ``(g o)``: for each ``g`` all its ``i`` join, and the result repeats for each ``o``.
    """
    shared = [letter for letter in block if letter in part]
    order = [part.index(letter) for letter in shared] + [at for at, letter in enumerate(part) if letter not in block]
    given = [sizes[letter] for letter in part]
    count = math.prod(sizes[letter] for letter in shared)

    def table(column: Any) -> Any:
        return column.reshape(given).transpose(order).reshape(count, -1)

    digest, low, high = table(slices.digest), table(slices.low), table(slices.high)
    merged = (digest[:, 0] if digest.shape[1] == 1 else rows(digest), low.min(1), high.max(1))
    shape = [sizes[letter] if letter in shared else 1 for letter in block]
    full = [sizes[letter] for letter in block]
    return Slices.of(*(np.broadcast_to(column.reshape(shape), full).reshape(-1) for column in merged))


def concatenated(parts: Sequence[Slices]) -> Slices:
    """The slices of a concatenation along its axis."""
    digest, low, high = (np.concatenate([getattr(part, name) for part in parts]) for name in ("digest", "low", "high"))
    return Slices(digest, low, high)


def content(array: Array) -> Digests:
    """The digest of an array. [1]"""
    return joined(named(str(array.dtype), array.shape), rows(bits(array).reshape(1, -1)))


def of_constant(array: Array, axis: int) -> Slices:
    """The slices of a constant: their content."""
    table = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    rest = (*array.shape[:axis], *array.shape[axis + 1 :])
    digest = joined(named(str(array.dtype), rest), rows(bits(table)))
    if array.dtype.kind not in "fiubV" or not table.shape[1]:
        return Slices.unknown(digest)
    return Slices.of(digest, table.min(1).astype(np.float64), table.max(1).astype(np.float64))
