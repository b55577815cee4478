"""Parameters are constants in floating point and quantised ones; zero points are no weights."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.parameters import parameters, zero_points

QUANTISED = """(float[N,3,4,4] x) => (float[N,8,4,4] y)
<int8[8,3,1,1] q, float[8] s, int8[8] z, int32[8] b, float[8] bs, int64[4] sizes = {0,8,4,4}> {
  w = DequantizeLinear<axis = 0>(q, s, z)
  bias = DequantizeLinear<axis = 0>(b, bs)
  c = Conv(x, w, bias)
  y = Reshape(c, sizes)
}"""


def test_integers_that_stand_for_real_numbers_count_and_sizes_do_not() -> None:
    model = Model.of(parse(QUANTISED))
    assert parameters(model).keys() == {"q", "s", "b", "bs"}
    assert zero_points(model) == {"z"}


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "FLOAT8E4M3FN", "BFLOAT16"])
def test_weights_of_operators_without_a_rule_count_by_their_type(kind: str) -> None:
    node = helper.make_node("DynamicQuantizeLSTM", ["x", "w"], ["y"], domain="com.microsoft")
    weight = helper.make_tensor("w", getattr(TensorProto, kind), [4, 2], [0] * 8)
    table = numpy_helper.from_array(np.arange(4), "table")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([node], "g", [x], [], [weight, table])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    assert parameters(Model.of(helper.make_model(graph, opset_imports=opsets, ir_version=10))) == {"w": 1}
