"""The distance from each stored element to the next in one or two bytes: fast to decode, and small where little is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune.ir.weights import Array
from onnxprune.sparse.encoding.decoder import Chain
from onnxprune.sparse.encoding.flat import Flat

__all__ = ["Delta"]


@dataclass(frozen=True, slots=True)
class Delta:
    """Distances of 8 or 16 bits; where one is too long, elements that equal the fill are stored to step on.

    Attributes:
        width: bits of a distance.
    """

    nodes: ClassVar[int] = 215
    unit: ClassVar[int] = 1
    width: int

    @property
    def _longest(self) -> int:
        return (1 << self.width) - 1

    def _steps(self, flat: Flat) -> tuple[Array, Array]:
        """The distance to each stored element from the one before, and the elements that are stored only to get there."""
        gaps = np.diff(flat.positions, prepend=0)
        return gaps, np.maximum(gaps - 1, 0) // self._longest

    def nbytes(self, flat: Flat) -> int:
        stored = max(flat.stored + int(self._steps(flat)[1].sum()), 1)
        return stored * (self.width // 8 + flat.itemsize)

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder; the name of the row it makes."""
        gaps, extra = self._steps(flat)
        at = np.arange(len(gaps)) + np.cumsum(extra)
        count = max(len(gaps) + int(extra.sum()), 1)  # a decoder of nothing: the fill at position 0
        distances = np.full(count, self._longest if len(gaps) else 0, f"u{self.width // 8}")
        values = np.full(count, flat.fill, flat.bits.dtype)
        distances[at], values[at] = gaps - extra * self._longest, flat.bits[flat.positions]
        positions = chain.summed(chain.cast(chain.payload(distances)))
        return chain.node("ScatterElements", chain.filled(flat, flat.size), positions, chain.payload(flat.typed(values)))

    def __str__(self) -> str:
        return f"delta{self.width}"
