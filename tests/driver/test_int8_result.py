"""What became of nodes and weights: which compute in integers, why others do not, and whether zeros stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

from onnxprune.driver.int8_result import WeightZeros, computing, kept_in_float, most_frequent_reason, weight_zeros
from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array

FLOAT = """<ir_version: 8, opset_import: ["": 17]>
net (float[N, 2] x) => (float[N, 2] y) { y = MatMul (x, w) }"""
INT8 = """<ir_version: 8, opset_import: ["": 17]>
net (float[N, 2] x) => (float[N, 2] y, int64[2] size)
<float scale = {0.5}, uint8 middle = {128}, int8 zero = {0}>
{
    xq = QuantizeLinear (x, scale, middle)
    xd = DequantizeLinear (xq, scale, middle)
    wd = DequantizeLinear (w_quantized, scale, zero)
    [product] p = MatMul (xd, wd)
    [sine] s = Sin (p)
    [excluded] e = Relu (s)
    [last] y = Relu (e)
    size = Shape (y)
}"""


def model(text: str, **weights: Array) -> Model:
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return Model.of(proto)


def test_nodes_and_why_they_are_in_floating_point() -> None:
    quantized = model(INT8, w_quantized=np.ones((2, 2), np.int8))
    for name in ("p", "s", "e", "y"):
        value = quantized.graph.value_info.add(name=name)
        value.type.tensor_type.elem_type = 1
    assert [node.op_type for node in computing(quantized)] == ["MatMul", "Sin", "Relu", "Relu"]  # no Shape
    kept = list(kept_in_float(quantized, {"excluded": "the user said so"}))
    assert [(node["node"], node["why"]) for node in kept] == [
        ("sine", "ONNX Runtime has no int8 form of it"),
        ("excluded", "the user said so"),
        ("last", "what it reads is not in int8"),
    ]
    assert most_frequent_reason(quantized, [*kept, kept[-1]]) == "what it reads is not in int8"
    assert most_frequent_reason(quantized, []) == "no operator reads a weight in floating point"


@pytest.mark.parametrize("stays", [True, False])
def test_zeros_are_counted_and_stay(stays: bool) -> None:
    first = model(FLOAT, w=np.array([[0, 1], [0.001, 0]], np.float32))
    after = np.array([[0, 1], [0, 0 if stays else 1]], np.int8)
    if stays:
        assert weight_zeros(first, model(INT8, w_quantized=after)) == {"w": WeightZeros(4, 2, 3)}
    else:
        with pytest.raises(VerificationError, match="w: a zero of it is not zero in int8: leave it out with --exclude 'w'"):
            weight_zeros(first, model(INT8, w_quantized=after))
