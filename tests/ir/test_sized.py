"""Windows that are larger than their images, with slices behind them."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.sized import guarded, is_guard


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w) y = Slice (c, s, e, at)",
        "c = MaxPool <kernel_shape = [11, 1]> (x) r = Relu (c) y = Slice (r, s, e, at)",
        "c = Pad (x, p) t = Transpose <perm = [0, 1, 3, 2]> (c) y = Slice (t, s, e, last)",
        "y = If (q) <then_branch = t () => (u) { c = Conv (x, w) u = Slice (c, s, e, at) }, else_branch = f () => (x) {}>",
    ],
)
def test_a_window_that_is_larger_than_its_image_ends_nothing(body: str) -> None:
    """Inference of slices aborts the process where a size is negative."""
    weights = "float[4,2,11,1] w, int64[8] p = {0, 0, -9, 0, 0, 0, -4, 0}, int64[1] s = {1}, int64[1] e = {2}, int64[1] at = {2}"
    text = f"g (float[2,2,8,8] x) => (float[a,b,c,d] y) <{weights}, int64[1] last = {{3}}, bool q = {{1}}> {{ {body} }}"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    assert not any(is_guard(value.name) for value in typed_values(infer_shapes(model, sizes=True)))


def test_slices_behind_windows_have_their_shapes() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]> g (float[2,2,8,8] x) => (float[a,b,c,d] y)
        <float[4,2,3,1] w, int64[1] s = {1}, int64[1] e = {3}, int64[1] at = {2}> { c = Conv (x, w) y = Slice (c, s, e, at) }"""
    )
    y = {value.name: value for value in typed_values(infer_shapes(model))}["y"]
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [2, 4, 2, 8]
    assert len(model.graph.node) == 2


def test_slices_of_sizes_need_no_guard() -> None:
    """They follow from shapes, which are never negative, and are read number by number."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]> g (float[2,2,8,8] x) => (int64[a] y)
        <float[4,2,3,1] w, int64[1] s = {1}, int64[1] e = {3}> { c = Conv (x, w) z = Shape (c) y = Slice (z, s, e) }"""
    )
    assert guarded(model) is model
