"""N of every M elements: which of the possible choices each group makes, and its N elements."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import ClassVar

import numpy as np

from onnxprune.ir.weights import Array
from onnxprune.sparse.encoding.decoder import Chain
from onnxprune.sparse.encoding.flat import Flat, bits_of

__all__ = ["NM", "patterns"]

PERIODS = (4, 8, 16)
"""M of the patterns that are looked for."""


@dataclass(frozen=True, slots=True)
class NM:
    """At most ``n`` of every ``m`` elements differ from the fill.

    Choices are digits of a number in a byte, or in two where that takes less: three groups of 2:4 in a byte, as 6^3 < 256, are
    2.67 bits a group; its mask would be 4 bits, the entropy is 2.58.

    Attributes:
        n: elements that are stored in a group.
        m: elements of a group; a row has whole groups.
    """

    nodes: ClassVar[int] = 560
    n: int
    m: int

    @property
    def unit(self) -> int:
        """The row that is made has a group in each of its rows. [groups, m]"""
        return self.m

    @property
    def choices(self) -> int:
        """The number of ways to choose n of m."""
        return math.comb(self.m, self.n)

    @property
    def fits(self) -> bool:
        """Say whether a choice fits in two bytes."""
        return 0 < self.n < self.m and self.choices <= 1 << 16

    @property
    def _word(self) -> tuple[int, int]:
        """Bytes of a number, and the groups in it."""
        groups = {size: max((g for g in range(1, 17) if self.choices**g <= 1 << 8 * size), default=0) for size in (1, 2)}
        return (2, groups[2]) if groups[2] > 2 * groups[1] else (1, groups[1])

    def nbytes(self, flat: Flat) -> int:
        size, groups = self._word
        rows = flat.size // self.m
        return -(-rows // groups) * size + rows * self.n * flat.itemsize + 4 * self.choices * self.n

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder; the name of the row it makes."""
        table = _table(self.n, self.m)
        rows = flat.bits.reshape(-1, self.m)
        stored = np.argsort(rows == flat.fill, axis=1, kind="stable")[:, : self.n]
        stored.sort(axis=1)
        # A choice is known by its mask; masks of all choices, sorted, give its number.
        masks, mask = (np.bitwise_or.reduce(1 << places, axis=1) for places in (table.astype(np.int64), stored))
        order = np.argsort(masks)
        digits = order[np.searchsorted(masks, mask, sorter=order)]
        size, groups = self._word
        digits = np.pad(digits, (0, -len(digits) % groups)).reshape(-1, groups)
        powers = self.choices ** np.arange(groups)
        words = chain.cast(chain.payload((digits * powers).sum(axis=1).astype(f"u{size}")))
        if size == 1:  # a table of all bytes is quick to read
            every = chain.node("Gather", chain.constant(table), chain.digits(self.choices, groups))
            places = chain.node("Gather", every, words)
        else:
            read = chain.node("Div", chain.reshaped(words, -1, 1), chain.constant(powers))
            places = chain.node("Gather", chain.constant(table), chain.node("Mod", read, chain.constant(self.choices)))
        places = chain.reshaped(places, -1, self.n)
        if len(rows) % groups:
            places = chain.head(places, len(rows))
        values = chain.payload(flat.typed(np.take_along_axis(rows, stored, axis=1)))
        return chain.node("ScatterElements", chain.filled(flat, len(rows), self.m), places, values, axis=1)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@cache
def _table(n: int, m: int) -> Array:
    """All choices of n of m places. [choices, n] int32"""
    return np.array(list(combinations(range(m), n)), np.int32).reshape(-1, n)


def patterns(array: Array, fill: int) -> Iterator[tuple[int | None, NM]]:
    """N:M patterns along an axis that the weight satisfies; ``None`` for the last one, along which nothing moves.

    Runtimes look for them along what a layer sums over: the input channels of a convolution, either axis of a matrix.
    """
    stored = bits_of(array).reshape(array.shape) != fill
    for axis in {2: (1, 0), 1: (0,)}.get(array.ndim, (array.ndim - 1, 1) if array.ndim else ()):
        for period in PERIODS:
            if array.shape[axis] % period:
                break
            moved = np.moveaxis(stored, axis, -1)
            most = int(moved.reshape(*moved.shape[:-1], -1, period).sum(axis=-1, dtype=np.uint8).max())
            scheme = NM(max(most, 1), period)
            if scheme.fits:
                yield axis if math.prod(array.shape[axis + 1 :]) > 1 else None, scheme
