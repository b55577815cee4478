"""One bit for each element, and the elements that are stored: 1 bit per element at any sparsity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.sparse.encoding.decoder import Chain, pack, packed_bytes
from onnxprune.sparse.encoding.flat import Flat

__all__ = ["Bitmask"]


@dataclass(frozen=True, slots=True)
class Bitmask:
    """An element is the n-th one stored, n the bits set up to its own, or the fill: the entry before the first."""

    nodes: ClassVar[int] = 360
    unit: ClassVar[int] = 1

    def nbytes(self, flat: Flat) -> int:
        return packed_bytes(flat.size, 1) + (flat.stored + 1) * flat.itemsize

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder; the name of the row it makes."""
        bits = chain.codes(pack(flat.bits != flat.fill, 1), 1, flat.size)
        places = chain.node("Mul", chain.summed(bits), bits)
        values = chain.payload(flat.filled(flat.bits[flat.positions], first=True))
        return chain.node("GatherElements", values, places)

    def __str__(self) -> str:
        return "bitmask"
