"""The input positions that a convolution reads for each output position, in any number of dimensions (im2col)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.node import NodeView

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions

__all__ = ["Geometry"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes and steps of a convolution, for one size of its input.

    Along an axis of 5 positions a kernel of 3 taps with stride 2 and padding 1 has 3 outputs, which read the positions
    ``[pad, 0, 1]``, ``[1, 2, 3]`` and ``[3, 4, pad]``.

    Attributes:
        size: spatial sizes of the input.
        out: spatial sizes of the output.
        kernel: spatial sizes of the kernel.
        strides, dilations: one per spatial axis.
        before: padding before the first position of each spatial axis.
        transposed: whether it is a transposed convolution.
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    transposed: bool

    @classmethod
    def of(cls, view: NodeView, size: Sequence[int], kernel: Sequence[int]) -> Geometry:
        """Read a node as the operators Conv and ConvTranspose define it, ``auto_pad`` and ``output_shape`` included."""
        dims = len(size)
        strides = tuple(view.attr("strides") or [1] * dims)
        dilations = tuple(view.attr("dilations") or [1] * dims)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        mode = view.attr("auto_pad", "NOTSET")
        pads = view.attr("pads") or [0] * 2 * dims
        find = _transposed_axis if view.op == "ConvTranspose" else _axis
        extra = view.attr("output_padding") or [0] * dims
        given = view.attr("output_shape") or [0] * dims
        axes = zip(size, strides, spans, pads[:dims], pads[dims:], extra, given, strict=True)
        found = [find(mode, *axis) for axis in axes]
        out, before = tuple(o for o, _ in found), tuple(b for _, b in found)
        return cls(tuple(size), out, tuple(kernel), strides, dilations, before, view.op == "ConvTranspose")

    def taps(self, places: Positions) -> Positions:
        """For flat output positions the flat input position that each tap reads, ``prod(size)`` for padding. [places, taps]"""
        where = np.unravel_index(places, self.out)
        taps = np.unravel_index(np.arange(math.prod(self.kernel)), self.kernel)
        flat = np.zeros((len(places), math.prod(self.kernel)), np.int64)
        valid = np.ones(flat.shape, bool)
        for dim, size in enumerate(self.size):
            offset = taps[dim] * self.dilations[dim]
            if self.transposed:
                at, rest = np.divmod(where[dim][:, None] + self.before[dim] - offset[None, :], self.strides[dim])
                valid &= rest == 0
            else:
                at = where[dim][:, None] * self.strides[dim] - self.before[dim] + offset[None, :]
            valid &= (at >= 0) & (at < size)
            flat = flat * size + at
        return np.where(valid, flat, math.prod(self.size))


def _axis(mode: str, size: int, stride: int, span: int, begin: int, end: int, extra: int, given: int) -> tuple[int, int]:
    """Output size of a convolution along one axis, and the padding before it."""
    if mode == "VALID":
        return (size - span) // stride + 1, 0
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + span - size)
        return out, total // 2 if mode == "SAME_UPPER" else total - total // 2
    return (size + begin + end - span) // stride + 1, begin


def _transposed_axis(
    mode: str, size: int, stride: int, span: int, begin: int, end: int, extra: int, given: int
) -> tuple[int, int]:
    """Output size of a transposed convolution along one axis, and the padding before it."""
    full = stride * (size - 1) + extra + span
    if mode in {"SAME_UPPER", "SAME_LOWER"} or given:
        out = given or min(full, size * stride)  # nothing is put beyond what the kernel reaches
        total = max(0, full - out)
        return out, total // 2 if mode == "SAME_UPPER" else total - total // 2
    return (full, 0) if mode == "VALID" else (full - begin - end, begin)
