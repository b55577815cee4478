"""What became of nodes and weights: which compute in integers, why others do not, and whether zeros stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

from nets import parse
from onnxprune.driver.int8_result import WeightZeros, computing, kept_in_float, most_frequent_reason, weight_zeros
from onnxprune.driver.quantize import quantize
from onnxprune.errors import TargetError, VerificationError
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
    assert most_frequent_reason(quantized, [*kept, *[kept[1]] * 2, *[kept[2]] * 9]) == "the user said so"
    assert most_frequent_reason(quantized, [kept[-1]]) == "what it reads is not in int8"
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


def int8_of(second: str, first: str = "MatMul(b, w)") -> tuple[dict[str, int], list[str]]:
    """Two stretches with a ``Softplus`` in between, which has no int8 form: the nodes in int8, and those no layer is near."""
    text = f"""(float[N,8,8] x) => (float[N,8,8] y) <float[8,8] w, float[8,8] v> {{
        b = Sigmoid(x)
        d = {first}
        e = Softplus(d)
        y = {second}
    }}"""
    feeds = {"x": np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)}
    report = quantize(parse(text), samples=feeds).report
    return dict(report.nodes), [node["op"] for node in report.kept if "no layer around it" in node["why"]]


def test_what_only_moves_data_with_no_layer_near_stays_in_floating_point() -> None:
    """A stretch of ``Concat`` in int8 takes time and bytes, and saves none; ``Mul`` keeps its values in their range."""
    assert int8_of("MatMul(e, v)") == ({"Sigmoid": 1, "MatMul": 2}, [])
    assert int8_of("Mul(e, e)") == ({"Sigmoid": 1, "MatMul": 1, "Mul": 1}, [])
    assert int8_of("Concat<axis = 1>(e, e)") == ({"Sigmoid": 1, "MatMul": 1}, ["Concat"])
    with pytest.raises(TargetError, match="nothing in it can be quantised: ONNX Runtime has no int8 form of it"):
        int8_of("Mul(e, e)", "Add(b, b)")
