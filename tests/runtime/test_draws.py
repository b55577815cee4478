"""Random numbers of a graph are the same in every run, and look as those that it would draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.driver.encode import encode
from onnxprune.driver.prune import prune
from onnxprune.driver.quantize import quantize
from onnxprune.driver.sparsify import sparsify
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.runtime.draws import draws
from onnxprune.runtime.session import Session

X = np.full((500, 40), 0.3, np.float32)
FLAT = 1 / 12**0.5
"""The standard deviation of what is drawn evenly from an interval of length 1."""


def drawn(node: str, *, opset: int = 18, x: Any = X) -> Any:
    kind = "double" if "11" in node else "float"
    model = Model.of(parse(f"(float[N,M] x) => ({kind}[P,Q] y) {{ y = {node} }}", opset))
    first, second = (Session(model).run({"x": x})[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    return first


@pytest.mark.parametrize(
    ("node", "mean", "deviation"),
    [
        ("RandomNormalLike(x)", 0.0, 1.0),
        ("RandomNormalLike<mean: float = 2.0, scale: float = 3.0, dtype: int = 11>(x)", 2.0, 3.0),
        ("RandomNormal<shape: ints = [500, 40]>()", 0.0, 1.0),
        ("RandomUniformLike(x)", 0.5, FLAT),
        ("RandomUniform<shape: ints = [500, 40], low: float = -1.0, high: float = 3.0>()", 1.0, 4 * FLAT),
        ("Bernoulli(x)", 0.3, 0.21**0.5),
    ],
)
def test_they_repeat_and_are_spread_as_they_should(node: str, mean: float, deviation: float) -> None:
    values = drawn(node)
    assert values.shape == X.shape
    assert values.dtype == (np.float64 if "11" in node else np.float32)
    assert values.mean() == pytest.approx(mean, abs=0.03 * max(deviation, 1))
    assert values.std() == pytest.approx(deviation, rel=0.02)
    for axis in (0, 1):  # neighbours have nothing in common
        one, other = np.split(np.moveaxis(values, axis, 0), 2)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


def test_two_nodes_draw_different_numbers() -> None:
    model = Model.of(parse("(float[N,M] x) => (float[N,M] y, float[N,M] z) { y = RandomNormalLike(x) z = RandomNormalLike(x) }"))
    one, other = Session(model).run({"x": X})
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_operator_sets(opset: int) -> None:
    assert drawn("RandomNormalLike<dtype: int = 1>(x)", opset=opset).std() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1)])
def test_sizes_of_zero_and_one(shape: tuple[int, int]) -> None:
    assert drawn("RandomUniformLike(x)", x=np.ones(shape, np.float32)).shape == shape


NOISE = "q = RandomNormalLike(k)"
IN_A_BRANCH = """one = Constant<value_float: float = 0.0>() sum = ReduceSum<keepdims = 0>(x) above = Greater(sum, one)
  q = If(above)<then_branch = a () => (float[N,16] u) { u = RandomNormalLike(k) },
            else_branch = b () => (float[N,16] v) { v = Neg(k) }>"""
NET = """(float[N,8] x) => (float[N,4] y) <float[8,16] a, float[16,16] b, float[16,4] c> {
  h = MatMul(x, a) r = Relu(h) k = MatMul(r, b) %s s = Add(k, q) t = Relu(s) y = MatMul(t, c)
}"""
SAMPLES = {"x": np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)}


@pytest.mark.parametrize("noise", [NOISE, IN_A_BRANCH], ids=["graph", "branch"])
@pytest.mark.parametrize(
    "made",
    [
        lambda net: prune(net, Recipe(target="macs=0.7", align="1"), samples=SAMPLES).report.verification,
        lambda net: sparsify(net, SparseRecipe(sparsity=0.5, ends=True), samples=SAMPLES).report.verification,
        lambda net: encode(net).verification,
        lambda net: quantize(net, samples=SAMPLES).report.verification,
    ],
    ids=["prune", "sparsify", "encode", "quantize"],
)
def test_models_that_draw_are_proven(made: Any, noise: str) -> None:
    net = parse(NET % noise)
    assert draws(net) == 1
    check = made(net)
    assert check.ok
    assert not check.untested
    assert "random numbers were the same in both models; nodes that draw: 1" in check.notes
