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


@pytest.mark.parametrize(
    "body",
    [
        "r = Range (zero, m, one) y = Cast <to = 1> (r)",
        "r = ConstantOfShape (k) y = Add (r, r)",
        "y = If (c) <then_branch = t () => (u) { u = Tile (k, k) }, else_branch = e () => (v) { v = Tile (k, k) }>",
    ],
)
def test_long_vectors_are_not_followed_entry_by_entry(body: str) -> None:
    """The inference of onnx takes the entries of each vector for sizes: this would take terabytes."""
    text = (
        "<int64 zero = {0}, int64 one = {1}, int64 m = {999999999999}, int64[1] k = {999999999999}, bool c = {1}, int64 z = {0}>"
    )
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[n] y) {text} {{ {body} }}'
    )
    y = {value.name: value for value in typed_values(infer_shapes(model, sizes=True))}["y"]
    assert y.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_integers_that_follow_from_shapes_are_followed() -> None:
    body = "{ s = Shape (x) y = ConstantOfShape (s) }"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> g (float[2, 3] x) => (float[a, b] y) {body}')
    y = {value.name: value for value in typed_values(infer_shapes(model, sizes=True))}["y"]
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [2, 3]
