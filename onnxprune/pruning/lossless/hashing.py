"""64-bit digests of numbers, vectorised: equal numbers have equal digests, others differ except by accident (2^-64).

Zeros of either sign are equal. Arithmetic is modulo 2^64; the mixing is the finaliser of SplitMix64 (Steele et al. 2014).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["Digests", "bits", "joined", "mixed", "named", "numbers", "products", "rows"]

Digests = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF, _ONE = np.uint64(32), np.uint64(1)
_CHUNK = 1 << 18
"""Elements mixed at a time: they stay in the cache."""


def mixed(values: Digests) -> Digests:
    """Spread every bit over all of them; a bijection."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def named(*parts: object) -> Digests:
    """The digest of what ``repr`` spells. [1]"""
    return np.frombuffer(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), np.uint64)


def bits(array: Array) -> Digests:
    """The bits of numbers; 0 for zeros of either sign."""
    plain = np.ascontiguousarray(array)
    if plain.dtype.kind in "fV":
        plain = np.where(plain == 0, np.zeros((), plain.dtype), plain)
    return plain.view(np.dtype(f"u{plain.dtype.itemsize}")).astype(np.uint64)


def numbers(array: Array) -> Digests:
    """The digest of each number as a number: 1 is 1 in every type."""
    return mixed(bits(array.astype(np.float64)) + _GOLDEN)


def joined(*columns: Digests) -> Digests:
    """The digest of tuples, given column by column; columns broadcast."""
    result = np.full(1, _GOLDEN)
    for column in columns:
        result = mixed(result * _GOLDEN + column)
    return result


def rows(table: Digests) -> Digests:
    """The digest of each row, in order. [n, k] -> [n]"""
    places = np.arange(1, table.shape[1] + 1, dtype=np.uint64) * _GOLDEN
    return mixed(mixed(table + places).sum(1, dtype=np.uint64) + _GOLDEN)


def products(table: Array, factors: Digests) -> Digests:
    """The digest of each row of numbers as a sum of products: table [n, k], a factor for each column [k] -> [n].

    Neither the order of the columns matters, nor columns of zeros, nor those whose factor is 0.
    """
    odd = np.where(factors == 0, factors, factors | _ONE)
    result = np.empty(len(table), np.uint64)
    step = max(1, _CHUNK // max(table.shape[1], 1))
    for start in range(0, len(table), step):
        some = bits(table[start : start + step])
        some *= _GOLDEN
        some ^= some >> _HALF
        some *= odd
        result[start : start + step] = some.sum(1, dtype=np.uint64)
    return mixed(result + _GOLDEN)
