"""Subnormal weights."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import FlushSubnormals

TEXT = "(TYPE[N,4] x) => (TYPE[N,4] y) <TYPE[4,4] w, TYPE[4] b> { a = MatMul(x, w) y = Add(a, b) }"
SMALL = np.array([[1e-45, -1e-39, 1.2e-38, 0], [1, -1, 1e-30, 5e-40], [0] * 4, [2] * 4], np.float32)


def model(dtype: str = "float") -> Model:
    found = Model.of(parse(TEXT.replace("TYPE", dtype)))
    for name, values in {"w": SMALL, "b": SMALL[0]}.items():
        found.weights[name] = Weight(name, None, values.astype(found.weights[name].array().dtype))
    return found


def test_weights_of_layers_that_are_subnormal_become_zero() -> None:
    flushed = FlushSubnormals().run(model())
    expected = SMALL.copy()
    expected[0, :2] = expected[1, 3] = 0
    np.testing.assert_array_equal(flushed.weights["w"].array(), expected)
    np.testing.assert_array_equal(flushed.weights["b"].array(), SMALL[0])  # what divides by a constant, say, needs it


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_types_stay(dtype: str) -> None:
    given = model(dtype)
    assert FlushSubnormals().run(given) is given


def test_a_model_without_them_is_the_same() -> None:
    given = model()
    given.weights["w"] = Weight("w", None, np.eye(4, dtype=np.float32))
    assert FlushSubnormals().run(given) is given
