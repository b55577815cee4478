"""What layers will compute in."""

from __future__ import annotations

import pytest
from onnx import helper

from onnxprune.driver.layer_types import IN_FLOATS, LayerTypes

PRODUCT = helper.make_node("MatMul", ["x", "w"], ["a"], name="product")
BIAS = helper.make_node("Add", ["a", "b"], ["c"], name="bias")
SOFTMAX = helper.make_node("Softmax", ["c"], ["y"], name="softmax")


def test_nothing_is_in_int8_where_all_are_floats() -> None:
    assert not IN_FLOATS.is_int8([PRODUCT, BIAS])


@pytest.mark.parametrize(
    ("floats", "layer", "alone"),
    [
        ((), True, True),
        (("product", "bias"), False, True),
        (("w",), False, True),
        (("Add", "Softmax"), True, False),  # products alone: by operators
        (("MatMul",), False, True),
        (("softmax",), True, False),
    ],
)
def test_a_layer_is_what_its_product_is(floats: tuple[str, ...], layer: bool, alone: bool) -> None:
    types = LayerTypes(int8=True, floats=floats)
    assert types.is_int8([PRODUCT, BIAS]) is layer
    assert types.is_int8([SOFTMAX]) is alone
