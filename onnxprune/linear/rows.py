"""The input and the output of a reader as rows of matrices.

Of a convolution a row is a sample at a position of the output, with one feature for each input channel and kernel tap (im2col);
of a matrix product it is a row of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.equation import ANONYMOUS
from onnxprune.axes.factors import labels
from onnxprune.linear.im2col import Geometry
from onnxprune.linear.roles import TAP, named_letters

if TYPE_CHECKING:
    import numpy.typing as npt

    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.ir.weights import Array
    from onnxprune.linear.layers import Reader

__all__ = ["PickedRows", "input_rows", "output_rows", "pick_rows", "positions_read", "summable"]

_INPUT = ("group", "row", "feature")
_OUTPUT = ("group", "row", "output")
_LARGEST = 1e15
"""Magnitude of an entry below which the squares of 10^8 rows have a sum in float32."""


@dataclass(frozen=True, slots=True)
class PickedRows:
    """Rows of one batch.

    Attributes:
        places: flat output positions of a convolution, or rows of a product.
        taps: for a convolution, for each place the flat input position that each tap reads, the number of input positions where
            it reads padding. [places, taps]
    """

    places: Positions
    taps: Positions | None


def pick_rows(reader: Reader, shape: Sequence[int], kernel: Sequence[int], rows: int, rng: np.random.Generator) -> PickedRows:
    """Draw about ``rows`` rows of one batch.

    Args:
        reader: the reader.
        shape: of the batch of data.
        kernel: shape of the weight.
        rows: how many; all where the batch has no more. A convolution takes the same output positions of every sample.
        rng: the generator that draws.
    """
    if reader.is_convolution:
        geometry = Geometry.of(reader.node.view, shape[2:], kernel[2:])
        places = _drawn(math.prod(geometry.out), max(1, round(rows / max(shape[0], 1))), rng)
        return PickedRows(places, geometry.taps(places))
    names, sizes = reader.roles.letters(shape, reader.data_axes)
    return PickedRows(_drawn(math.prod(sizes[name] for name in names if reader.roles.role(name) == "row"), rows, rng), None)


def input_rows(reader: Reader, x: Array, picked: PickedRows) -> Array:
    """Rows of the data. [groups, rows, features]"""
    if picked.taps is None:
        return reader.roles.arrange(x, reader.data_axes, _INPUT)[:, picked.places]
    flat = x.reshape(*x.shape[:2], -1)
    padded = np.concatenate([flat, np.zeros((*flat.shape[:2], 1), x.dtype)], 2)
    return reader.roles.arrange(padded[:, :, picked.taps], (*reader.data_axes[:2], ANONYMOUS, TAP), _INPUT)


def output_rows(reader: Reader, y: Array, picked: PickedRows) -> Array:
    """Rows of the output. [groups, rows, outputs]"""
    spelled = reader.node.equation.spelling[1][0]
    if picked.taps is None:
        return reader.roles.arrange(y, spelled, _OUTPUT)[:, picked.places]
    y = y.reshape(*y.shape[:2], -1)[:, :, picked.places]
    return reader.roles.arrange(y, (*spelled[:2], ANONYMOUS), _OUTPUT)


def summable(*arrays: Array) -> npt.NDArray[np.bool_]:
    """Tell for each row of arrays [groups, rows, ...] if its products have sums: it has numbers, and none is too large. [rows]"""
    ends = [
        (array.min((0, 2), initial=0), array.max((0, 2), initial=0)) for array in arrays
    ]  # what is no number is neither less nor more
    found: npt.NDArray[np.bool_] = np.all([(low > -_LARGEST) & (high < _LARGEST) for low, high in ends], 0)
    return found


def positions_read(reader: Reader, coupling: Coupling, factor: Factor) -> Positions | None:
    """Tell for each feature of a reader the position of a group that it belongs to, -1 for none; ``None`` if none belongs.

    A 1 x 3 convolution over two channels, both in the group, has the positions ``[0, 0, 0, 1, 1, 1]``.
    [groups, features]
    """
    for axis in reader.feature_axes:
        found = labels(coupling.axes[reader.data][axis], factor)
        if (found >= 0).any():
            return _by_feature(reader, axis, found)
    return None


def _by_feature(reader: Reader, axis: int, belong: Positions) -> Positions:
    """Numbers of the positions of one axis of the data, for the features that read them. [groups, features]"""
    spelled = reader.data_axes
    letters = [[name for name in named_letters(along) if reader.roles.role(name) != "row"] for along in spelled]
    shape = [1] * len(spelled)
    shape[axis] = -1
    full = [math.prod(reader.roles.sizes[name] for name in names) for names in letters]
    values = np.broadcast_to(belong.reshape(shape), full)
    if reader.is_convolution:
        values, spelled = np.repeat(values.reshape(1, -1, 1, 1), reader.taps, 3), (*spelled[:2], ANONYMOUS, TAP)
    found: Array = reader.roles.arrange(values, spelled, _INPUT)[:, 0]
    return found


def _drawn(total: int, count: int, rng: np.random.Generator) -> Positions:
    return np.arange(total) if count >= total else np.sort(rng.choice(total, count, replace=False))
