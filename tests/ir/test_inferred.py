from __future__ import annotations

import onnx
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.ir.inferred import infer_shapes, typed_values


def test_types_and_shapes_follow() -> None:
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]> g (float[2, 3] x) => (y) { y = Shape (x) }')
    y = {value.name: value for value in typed_values(infer_shapes(model))}["y"]
    assert y.type.tensor_type.shape.dim[0].dim_value == 2


def test_what_the_standard_refuses_is_a_model_error() -> None:
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (y) { y = Relu (x) }')
    model.graph.node.append(helper.make_node("Relu", [], ["z"]))
    with pytest.raises(ModelError, match=r"m\.onnx: is not a valid graph: .*Relu"):
        infer_shapes(model, "m.onnx")
