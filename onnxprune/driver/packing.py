"""Arrays in one file, without pickles: numpy's npz with an index of names, which keeps every bit and the order in memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.ir.weights import Array

__all__ = ["ArrayName", "Arrays", "pack", "unpack"]

ArrayName = tuple[str, str, int]
"""What kind of array it is, what it belongs to, and which one of that."""
Arrays = dict[ArrayName, Array]

_INDEX = "index"


def pack(arrays: Mapping[ArrayName, Array]) -> bytes:
    """The file of some arrays.

    The order of their axes in memory is kept, too: products of matrices round by it.
    """
    index, content = [], {}
    for number, (name, array) in enumerate(arrays.items()):
        axes = _axes(array)
        index.append([*name, axes])
        content[f"a{number}"] = array.transpose(axes)
    told = np.frombuffer(json.dumps(index).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{_INDEX: told}, **content)
    return file.getvalue()


def unpack(content: bytes) -> Arrays | None:
    """The arrays of a file that anyone may have written; ``None`` if it is not whole, or no such file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            index = json.loads(file[_INDEX].tobytes())
            return {_name(entry): _restored(file[f"a{number}"], entry[3]) for number, entry in enumerate(index)}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, RecursionError, zipfile.BadZipFile):
        return None


def _axes(array: Array) -> list[int]:
    """The axes from the one with the largest steps in memory to the one with the smallest."""
    return sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis))


def _name(entry: Any) -> ArrayName:
    kind, name, number, _ = entry
    if not (isinstance(kind, str) and isinstance(name, str) and isinstance(number, int)):
        raise TypeError
    return kind, name, number


def _restored(array: Array, axes: Sequence[int]) -> Array:
    """The array with its axes in their places again; argsort inverts a permutation."""
    if array.dtype.kind not in "fi":
        raise TypeError
    return np.ascontiguousarray(array).transpose(np.argsort(axes))
