"""Bytes that sparse weights take, and bounds for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxprune.ir.weights import Array
from onnxprune.sparse.encoding.flat import bits_of, narrowest
from onnxprune.sparse.encoding.n_of_m import patterns

__all__ = ["Encoded", "compressed", "entropy_bytes", "totals"]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Encoded:
    """A weight in a file.

    Attributes:
        name: in the graph.
        shape: its sizes.
        dtype: its type, as numpy spells it.
        sparsity: fraction of its elements that are zero, or hold the zero point.
        pattern: the N:M that it satisfies, as ``2:4``; empty if it has more in some group than half.
        encoding: how it is stored; where pieces differ, all of them.
        dense: bytes of all its elements.
        stored: bytes of what is stored, without nodes.
        bound: bytes of what is not zero, and of the entropy of where that is, if all places are equally likely, or all choices
            that fit the pattern.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sparsity: float
    pattern: str
    encoding: str
    dense: int
    stored: int
    bound: float

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @classmethod
    def of(cls, name: str, array: Array, fill: int = 0) -> Encoded:
        """A weight as it is."""
        size = array.size
        unlike = int((bits_of(array) != fill).sum())
        width = narrowest(array).itemsize
        bound, pattern = entropy_bytes(size, unlike, width), ""
        for _, scheme in patterns(array, fill) if unlike < size else ():
            groups = size // scheme.m
            bound = min(bound, groups * (scheme.n * width + math.log2(scheme.choices) / 8))
            pattern = pattern or (str(scheme) if 2 * scheme.n <= scheme.m else "")
        sparsity = 1 - unlike / size if size else 0.0
        return cls(name, tuple(array.shape), str(array.dtype), sparsity, pattern, "dense", array.nbytes, array.nbytes, bound)


def entropy_bytes(size: int, stored: int, itemsize: int) -> float:
    """Bytes of some elements among others, and of the entropy of their places."""
    density = stored / size if size else 0.0
    if density in {0.0, 1.0}:
        return float(stored * itemsize)
    bits = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    return stored * itemsize + size * bits / 8


def totals(rows: Sequence[Encoded]) -> dict[str, Any]:
    """Totals over all weights."""
    elements = sum(row.elements for row in rows)
    zeros = sum(row.sparsity * row.elements for row in rows)
    return {
        "elements": elements,
        "sparsity": zeros / elements if elements else 0.0,
        "dense_bytes": sum(row.dense for row in rows),
        "stored_bytes": sum(row.stored for row in rows),
        "bound_bytes": round(sum(row.bound for row in rows)),
        "weights": [asdict(row) for row in rows],
    }


def compressed(paths: Sequence[Path]) -> dict[str, int]:
    """Bytes of files after ``gzip -6``, as zip archives have it, and after ``zstd -9`` if the package ``zstandard`` is there."""
    import zlib

    packers: dict[str, Any] = {"gzip": zlib.compressobj(6, wbits=31)}
    try:
        import zstandard
    except ImportError:
        pass
    else:
        packers["zstd"] = zstandard.ZstdCompressor(level=9).compressobj()
    counts = dict.fromkeys(packers, 0)
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                for kind, packer in packers.items():
                    counts[kind] += len(packer.compress(chunk))
    for kind, packer in packers.items():
        counts[kind] += len(packer.flush())
    return counts
