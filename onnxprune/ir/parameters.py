"""Which constants of a graph are parameters: those in floating point, and the quantised ones that stand for such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnx import TensorProto

from onnxprune.ir.node import every_node
from onnxprune.ir.weights import FLOATS, PACKED

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["parameters", "zero_points"]

_NARROW = frozenset(
    {
        *PACKED,
        *(kind for name, kind in TensorProto.DataType.items() if name.startswith("FLOAT8")),
        *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16),
    }
)
"""Types of quantised weights; nothing else that a graph holds in numbers has them."""
_BIASES = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
"""The inputs that biases come by as 32-bit integers."""
_IN_BLOCKS = "MatMulNBits"
"""Reads weights of a few bits, several in a byte."""
_ZERO_POINTS: Mapping[str, tuple[int, ...]] = {
    "QuantizeLinear": (2,), "DequantizeLinear": (2,), "ConvInteger": (2, 3), "MatMulInteger": (2, 3), "QLinearConv": (2, 5, 7),
    "QLinearMatMul": (2, 5, 7), "QGemm": (2, 5, 8), "DynamicQuantizeMatMul": (3,), "MatMulIntegerToFloat": (4, 5),
    "DynamicQuantizeLSTM": (9, 11), "MatMulNBits": (3,), "QLinearAdd": (2, 5, 7), "QLinearMul": (2, 5, 7),
}  # fmt: skip


def parameters(model: Model) -> dict[str, int]:
    """The constants that are parameters, and how many each of their elements holds.

    Zero points are none. Constants of bodies must have been moved out of them.
    """
    found = {name: 1 for name, weight in model.weights.items() if weight.dtype in FLOATS or weight.dtype in _NARROW}
    for node in every_node(model.graph):
        position = _BIASES.get(node.op_type, len(node.input))
        if position < len(node.input) and node.input[position] in model.weights:
            found[node.input[position]] = 1
        if node.op_type == _IN_BLOCKS and node.input[1] in found:
            bits = next((int(attribute.i) for attribute in node.attribute if attribute.name == "bits"), 4)
            found[node.input[1]] = max(8 // bits, 1)
    points = zero_points(model)
    return {name: count for name, count in found.items() if name not in points}


def zero_points(model: Model) -> set[str]:
    """The names of the constants that are zero points: zeros in most models, and no weights."""
    return {
        node.input[position]
        for node in every_node(model.graph)
        for position in _ZERO_POINTS.get(node.op_type, ())
        if position < len(node.input)
    }
