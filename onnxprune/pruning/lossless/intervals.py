"""Bounds of the outputs of a node, given bounds of its inputs (interval arithmetic).

No pointwise operator is modelled: ONNX Runtime computes the node at the ends of the ranges, on one element per distinct case.
A number that is known is a range of one point, so constants come out as what the runtime would compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.axes.rules.elementwise import BROADCASTING, ZERO_TO_OTHER, ZERO_TO_ZERO
from onnxprune.ir.weights import Floats
from onnxprune.runtime import session

if TYPE_CHECKING:
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array, Flags
    from onnxprune.pruning.lossless.slices import Slices

__all__ = ["CONVEX", "Operand", "Ranges", "hull", "limits", "product_bounds"]

Bounds = tuple[Floats, Floats]

MONOTONE = frozenset({
    "Add", "Atan", "BatchNormalization", "Ceil", "Clip", "DequantizeLinear", "Erf", "Exp", "Floor", "HardSigmoid", "Identity",
    "Max", "Mean", "Min", "Mul", "Neg", "QuantizeLinear", "Relu", "Round", "Sigmoid", "Sign", "Softplus", "Softsign", "Sub",
    "Sum", "Tanh",
})  # fmt: skip
"""Monotone in each input while the others stand still: over a box of inputs, extremes are at corners."""
POINTWISE = MONOTONE | {*ZERO_TO_ZERO, *ZERO_TO_OTHER, *BROADCASTING, "Acosh", "Log", "Pow", "Reciprocal"}
"""Each element of the output depends on one element of each input."""
CONVEX = frozenset({
    "AveragePool", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool",
    "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Every element of an output is an element of the input, or lies between some of them (or beyond them, at the border)."""
_HUGE = 1e30
"""Bounds beyond this are none: nothing is won by them, and sums of them overflow."""
_CORNERS = 3
"""Inputs that may be more than a point: the runtime computes a power of two of corners."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One input of a node, along one letter.

    Attributes:
        low: smallest value at each position of the letter, or one number for all. [m] or [1]
        high: largest value.
        axis: the axis that carries the letter; ``None`` if none does.
        rank: number of axes.
        dtype: type of its elements.
    """

    low: Floats
    high: Floats
    axis: int | None
    rank: int
    dtype: np.dtype[Any]

    def tensor(self, values: Floats) -> Array:
        """ValueNumbering along the axis of the letter, every other axis 1."""
        shape = [1] * self.rank
        if self.axis is not None:
            shape[self.axis] = len(values)
        with np.errstate(over="ignore", invalid="ignore"):
            return (values if self.axis is not None else values[:1]).astype(self.dtype).reshape(shape)


def limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the greatest finite number of a type: true bounds of every result."""
    if dtype.kind == "b":
        return 0.0, 1.0
    info: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(info.min), float(info.max)


class Ranges:
    """Bounds of pointwise nodes; remembers what it had computed."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._found: dict[tuple[Any, ...], Bounds] = {}

    def __call__(self, node: NodeAxes, signature: int, operands: Sequence[Operand | None], size: int) -> Bounds | None:
        """The bounds of the first output at each position of a letter; ``None`` where nothing is known.

        Args:
            node: the node.
            signature: stands for its operator and attributes.
            operands: its inputs along the letter, ``None`` for absent ones.
            size: positions of the letter.
        """
        present = [operand for operand in operands if operand is not None]
        if node.view.op not in POINTWISE or node.view.domain or any(o.dtype.kind not in "fiub" for o in present):
            return None
        if any(o.axis is None and (o.low != o.high).any() for o in present):
            return None  # it varies over other axes: where, one element does not say
        table = np.array([end for operand in present for end in _clipped(operand, size)])
        points = (table[::2] == table[1::2]).all(0)
        chosen = np.ones(size, bool) if node.view.op in MONOTONE else points
        low, high = np.full(size, -np.inf), np.full(size, np.inf)
        if not chosen.any():
            return low, high
        cases, which = np.unique(table[:, chosen], axis=1, return_inverse=True)
        key = (signature, node.view.opset, len(operands), cases.shape, cases.tobytes())
        if key not in self._found:
            self._found[key] = self._compute(node, operands, cases)
        low[chosen], high[chosen] = (end[which.reshape(-1)] for end in self._found[key])
        return low, high

    def _compute(self, node: NodeAxes, operands: Sequence[Operand | None], cases: Floats) -> Bounds:
        """The least and greatest results over the corners of each case. cases [2 operands, n] -> [n] twice."""
        count = cases.shape[1]
        unknown = np.full(count, -np.inf), np.full(count, np.inf)
        wide = [i for i in range(len(cases) // 2) if (cases[2 * i] != cases[2 * i + 1]).any()]
        if len(wide) > _CORNERS:
            return unknown
        corners = [dict(zip(wide, ends, strict=True)) for ends in itertools.product((0, 1), repeat=len(wide))]
        present = [o for o in operands if o is not None]
        feeds = {
            f"i{i}": operand.tensor(np.concatenate([cases[2 * i + corner.get(i, 0)] for corner in corners]))
            for i, operand in enumerate(present)
        }
        results = self._run(node, operands, feeds)
        if results is None or results.size != count * len(corners):
            return unknown
        least, most = (np.clip(end, -_HUGE, _HUGE) for end in limits(results.dtype))
        table = results.astype(np.float64).reshape(len(corners), count)
        low, high = table.min(0), table.max(0)  # not a number where any corner is none
        return np.where(low > least, low, -np.inf), np.where(high < most, high, np.inf)

    def _run(self, node: NodeAxes, operands: Sequence[Operand | None], feeds: Mapping[str, Array]) -> Array | None:
        proto = type(self._model.graph.node[node.index])()
        proto.CopyFrom(self._model.graph.node[node.index])
        names = iter(feeds)
        del proto.input[:], proto.output[:]
        proto.input.extend("" if operand is None else next(names) for operand in operands)
        proto.output.append("result")
        found = session.evaluate(self._model.proto, [proto], feeds)
        return found.get("result")


def _clipped(operand: Operand, size: int) -> tuple[Floats, Floats]:
    """Bounds within what the type can hold. [size] twice"""
    least, most = limits(operand.dtype)
    low, high = (np.broadcast_to(np.clip(end, least, most), (size,)) for end in (operand.low, operand.high))
    return low, high


def hull(node: NodeAxes, views: Sequence[Slices | None], number: int) -> tuple[Floats, Floats] | None:
    """Bounds of what lies between elements of the input, and at the border perhaps between those and another number.

    Args:
        node: its operator is one of `CONVEX`.
        views: its inputs along some letters, ``None`` for those that carry none of them.
        number: which of its outputs.
    """
    op, view = node.view.op, node.view
    data = [slices for slices in (views if op == "Concat" else views[:1]) if slices is not None]
    if (number and op != "Split") or (op == "Resize" and view.attr("mode") == "cubic"):
        return None
    ends = [(slices.low, slices.high) for slices in data]
    if op == "Pad" and view.attr("mode", "constant") == "constant":
        value = view.attr("value", view.const(2))
        if value is None and view.has(2):
            return None
        border = np.asarray(0.0 if value is None else value, np.float64).reshape(-1)
        ends.append((border, border))
    borders = view.attr("count_include_pad", 0) and (
        any(view.attr("pads", ())) or view.attr("ceil_mode", 0) or view.attr("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    )
    if op == "AveragePool" and borders:
        ends.append((np.zeros(1), np.zeros(1)))
    if not ends:
        return None
    low, high = ends[0]
    for least, most in ends[1:]:
        low, high = np.minimum(low, least), np.maximum(high, most)
    return low, high


def product_bounds(matrix: Array, low: Floats, high: Floats, scale: float) -> tuple[Floats, Floats]:
    """Bounds of ``scale * (matrix @ x)`` for x between bounds. [g, o, i, k], [g, i] twice -> [g o] twice

    Rows that weigh known numbers alone get one number.
    """
    above: Flags = np.any(matrix > 0, axis=3)
    below: Flags = np.any(matrix < 0, axis=3)
    loose: Flags = np.any((above | below) & (low != high)[:, None], axis=2)
    up: Flags = np.any((above & np.isposinf(high)[:, None]) | (below & np.isneginf(low)[:, None]), axis=2)
    down: Flags = np.any((above & np.isneginf(low)[:, None]) | (below & np.isposinf(high)[:, None]), axis=2)
    least, most = np.full(loose.shape, -np.inf), np.full(loose.shape, np.inf)
    bounded = ~(up & down)  # few rows of what follows a Relu: the others need no sums
    positive, negative = (clip(matrix[bounded], 0).sum(2, dtype=np.float64) for clip in (np.maximum, np.minimum))
    group = np.nonzero(bounded)[0]
    lower, upper = (np.where(np.isinf(end), 0, end)[group] for end in (low, high))  # where weights are zero, or a side is open
    lowest, highest = ((positive * a + negative * b).sum(1) for a, b in ((lower, upper), (upper, lower)))
    least[bounded] = np.where(down[bounded], -np.inf, lowest)
    most[bounded] = np.where(up[bounded], np.inf, np.where(loose[bounded], highest, lowest))
    ends = (least.reshape(-1) * scale, most.reshape(-1) * scale) if scale else (np.zeros(least.size), np.zeros(least.size))
    return np.minimum(*ends), np.maximum(*ends)
