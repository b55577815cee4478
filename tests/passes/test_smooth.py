"""Activations with channels of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Smooth
from onnxprune.runtime.session import Session

CONSTANTS = "float[8] scale, float[8] shift, float[8,6] w, float[8,4] v, float[6,8] turned"
RNG = np.random.default_rng(0)
SIZES = np.array([1, 1, 1, 50, 1, 1, 0.1, 1], np.float32)
"""Of the channels behind the normalisation."""


def model(nodes: str, outputs: str = "float[N,6] y") -> Model:
    found = Model.of(parse(f"(float[N,8] x) => ({outputs}) <{CONSTANTS}> {{ {nodes} }}"))
    found.weights["scale"] = Weight("scale", None, SIZES)
    found.weights["shift"] = Weight("shift", None, np.zeros(8, np.float32))
    return found


X = RNG.standard_normal((64, 8)).astype(np.float32)


def sizes(found: Model, value: str) -> Any:
    return np.abs(Session(found, [value]).run({"x": X})[0]).max(0)


def same(one: Model, other: Model) -> None:
    for before, after in zip(*(Session(each).run({"x": X}) for each in (one, other)), strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4)


NORM = "n = LayerNormalization(x, scale, shift) "


@pytest.mark.parametrize("product", ["y = MatMul(n, w)", "y = Gemm(n, w)", "y = Gemm<transB = 1>(n, turned)"])
def test_a_normalisation_that_products_alone_read_takes_it(product: str) -> None:
    given = model(NORM + product)
    found = Smooth().run(given, [{"x": X[:32]}, {"x": X[32:]}])
    assert [node.op_type for node in found.graph.node] == [node.op_type for node in given.graph.node]
    before, after = sizes(given, "n"), sizes(found, "n")
    assert after.max() / after.min() < 0.2 * before.max() / before.min()
    same(given, found)


def test_elsewhere_a_node_divides() -> None:
    given = model(NORM + "a = MatMul(n, w) b = Relu(n) c = MatMul(b, v) y = Concat<axis = 1>(a, c)", "float[N,10] y")
    found = Smooth().run(given, [{"x": X}])
    assert [node.op_type for node in found.graph.node] == [
        "LayerNormalization",
        "Mul",
        "MatMul",
        "Relu",
        "Mul",
        "MatMul",
        "Concat",
    ]
    same(given, found)


def test_all_products_of_a_value_read_it_divided_once() -> None:
    given = model(NORM + "a = MatMul(n, w) c = MatMul(n, v) b = Softmax(n) y = Concat<axis = 1>(a, c, b)", "float[N,18] y")
    found = Smooth().run(given, [{"x": X}])
    assert sum(node.op_type == "Mul" for node in found.graph.node) == 1
    same(given, found)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = MatMul(x, w)",  # an input of the model, which stays as it is
        "n = Tanh(x) y = MatMul(n, w)",  # channels are alike
        NORM + "a = MatMul(n, w) b = Transpose<perm = [1, 0]>(w) c = Softmax(b) d = ReduceMax<keepdims = 0>(c) y = Add(a, d)",
    ],
)
def test_what_stays_as_it_is(nodes: str) -> None:
    given = model(nodes)
    assert Smooth().run(given, [{"x": X}]) is given


def test_dead_channels_and_rows_stay() -> None:
    given = model(NORM + "y = MatMul(n, w)")
    given.weights["scale"] = Weight("scale", None, SIZES * np.array([0, 1, 1, 1, 1, 1, 1, 1], np.float32))
    w = given.weights["w"].array().copy()
    w[1] = 0
    given.weights["w"] = Weight("w", None, w)
    found = Smooth().run(given, [{"x": X}])
    assert np.isfinite(found.weights["w"].array()).all()
    same(given, found)
