"""The distance from each stored element to the next in 2 to 8 bits, with an escape: within some per cent of the entropy.

Distances between elements stored at random are geometrically distributed; their ideal code is Golomb's (1966, "Run-length
encodings"). Codes of one width, escape included, come near it and are decoded by running sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune.sparse.encoding.decoder import Chain, pack, packed_bytes
from onnxprune.sparse.encoding.flat import Flat

__all__ = ["Gaps"]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Codes of some bits: ``c < 2^width - 1`` stands for a stored element and ``c + 1`` positions to what comes next; the
    largest code, the escape, stands for as many positions as it says and no element.

    The first code is at position 0, whose element is always stored. A distance ``d`` becomes the code ``(d - 1) mod escape``
    and then ``(d - 1) // escape`` escapes, so that no two codes are at one position.

    Attributes:
        width: bits of a code.
    """

    nodes: ClassVar[int] = 750
    unit: ClassVar[int] = 1
    width: int

    @property
    def _escape(self) -> int:
        return (1 << self.width) - 1

    def nbytes(self, flat: Flat) -> int:
        codes = len(flat.entries) + int((flat.skipped // self._escape).sum())
        return packed_bytes(codes, self.width) + (len(flat.entries) + 1) * flat.itemsize

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder; the name of the row it makes."""
        at = np.arange(len(flat.entries))
        at[1:] += np.cumsum(flat.skipped // self._escape)
        codes = np.full(at[-1] + 1, self._escape, np.uint8)
        codes[at[:-1]], codes[-1] = flat.skipped % self._escape, 0
        read = chain.codes(pack(codes, self.width), self.width, len(codes))
        real = chain.cast(chain.node("Less", read, chain.constant(self._escape)))
        positions = chain.summed(chain.node("Add", read, real), exclusive=True)
        stored = chain.payload(flat.filled(flat.bits[flat.entries], first=True))
        values = chain.node("GatherElements", stored, chain.node("Mul", chain.summed(real), real))
        return chain.node("ScatterElements", chain.filled(flat, flat.size), positions, values)

    def __str__(self) -> str:
        return f"gaps{self.width}"
