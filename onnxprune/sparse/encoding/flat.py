"""A weight as one row of elements, most of which are the same: what every encoding encodes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from onnx import helper

from onnxprune.ir.weights import Array

__all__ = ["Flat", "bits_of", "most_frequent", "narrowest"]

_SAMPLE = 1 << 12
"""Elements that are looked at first: most weights need float32, and show it there."""


def bits_of(array: Array) -> Array:
    """The elements as unsigned integers of their width: equal if and only if they are the same bit for bit. [size]"""
    array = np.ascontiguousarray(array).reshape(-1)
    return array.view(np.dtype(f"u{array.itemsize}"))


def narrowest(array: Array) -> Array:
    """The same numbers in float16 if it holds each of them, bit for bit; else the array as it is.

    Weights come so from training or export in half precision, or from ``sparsify --values float16``.
    """
    if array.dtype != np.float32 or not _halves(array.reshape(-1)[:_SAMPLE]) or not _halves(array):
        return array
    return array.astype(np.float16)


def _halves(array: Array) -> bool:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        there_and_back = array.astype(np.float16).astype(np.float32)
    return np.array_equal(bits_of(array), bits_of(there_and_back))


def most_frequent(array: Array) -> int:
    """The bits of the element that is left out of the file: zero, and for integers of one byte the most frequent one.

    Quantised weights that are zero hold their zero point.
    """
    if array.dtype.kind not in "iu" or array.itemsize != 1 or not array.size:
        return 0
    return int(np.bincount(bits_of(array), minlength=256).argmax())


class Flat:
    """Elements in a row.

    Attributes:
        bits: the elements as unsigned integers. [size]
        dtype: what they are, as ``TensorProto.DataType``.
        fill: the bits of the element that is not stored.
    """

    def __init__(self, bits: Array, dtype: int, fill: int = 0) -> None:
        self.bits, self.dtype, self.fill = bits, dtype, fill

    @classmethod
    def of(cls, array: Array, fill: int | None = None) -> Flat:
        """The elements of an array in C order."""
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        return cls(bits_of(array), dtype, most_frequent(array) if fill is None else fill)

    @property
    def size(self) -> int:
        return int(self.bits.size)

    @property
    def itemsize(self) -> int:
        return int(self.bits.itemsize)

    @cached_property
    def positions(self) -> Array:
        """The positions of elements that differ from the fill, ascending. [stored] int64"""
        return np.flatnonzero(self.bits != self.fill)

    @property
    def nbytes(self) -> int:
        return int(self.bits.nbytes)

    @property
    def stored(self) -> int:
        """The number of elements that differ from the fill."""
        return int(self.positions.size)

    @cached_property
    def entries(self) -> Array:
        """The positions of elements that differ from the fill, and the first position. [entries] int64"""
        return self.positions if self.stored and not self.positions[0] else np.concatenate([[0], self.positions])

    @cached_property
    def skipped(self) -> Array:
        """The number of elements between an entry and the next. [entries - 1]"""
        return np.diff(self.entries) - 1

    def typed(self, bits: Array) -> Array:
        """Elements as what they are."""
        return bits.view(helper.tensor_dtype_to_np_dtype(self.dtype))

    def filled(self, bits: Array, *, first: bool = False) -> Array:
        """Stored elements as what they are; with ``first`` the fill before them."""
        head = np.full(1, self.fill, self.bits.dtype)
        return self.typed(np.concatenate([head, bits]) if first else bits)
