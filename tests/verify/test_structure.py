"""Models are compared without running them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import numpy_helper

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.verify.structure import first_difference

NET = """(float[N,4] x) => (float[N,3] y) <float[4,5] w, int64[2] shape = {-1, 5}> {
  a = MatMul(x, w)
  b = Reshape(a, shape)
  c = Constant<value = float[5,3] {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}>()
  y = MatMul(b, c)
}"""


def other_weight(model: Model) -> None:
    model.weights["w"] = Weight("w", None, np.full((4, 5), 7, np.float32))


def other_constant(model: Model) -> None:
    tensor = model.graph.node[2].attribute[0].t
    tensor.CopyFrom(numpy_helper.from_array(np.ones((5, 3), np.float32), tensor.name))


def other_size(model: Model) -> None:
    model.weights["shape"] = Weight("shape", None, np.array([1, 5]))


def other_shape(model: Model) -> None:
    model.weights["w"] = Weight("w", None, np.ones((4, 6), np.float32))


def no_constant(model: Model) -> None:
    del model.weights["w"]


def no_node(model: Model) -> None:
    del model.graph.node[-1]


@pytest.mark.parametrize(
    ("change", "text", "without_values"),
    [
        (other_weight, "constant 'w' has other values than it must have", ""),
        (other_constant, "node 'c' (Constant) is not the one that must be there", ""),
        (other_size, "constant 'shape' has other values than it must have", None),
        (other_shape, "constant 'w' has the shape [4, 6], not [4, 5], or another type", None),
        (no_constant, "constant 'w' is missing among those that must be there", None),
        (no_node, "node 'y' (MatMul) is missing among those that must be there", None),
    ],
)
def test_the_first_difference_is_named(change: Callable[[Model], None], text: str, without_values: str | None) -> None:
    model, other = Model.of(parse(NET)), Model.of(parse(NET))
    assert first_difference(model, other) == ""
    change(other)
    assert first_difference(model, other) == text
    assert first_difference(model, other, values=False) == (text if without_values is None else without_values)
