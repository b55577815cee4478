"""Products in int8 that output floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import printer

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.passes.bodies import replace_all
from onnxprune.runtime.float_outputs import with_float_outputs
from onnxprune.runtime.session import Session

HEAD = """(float[N,4] x) => (OUTPUTS) <
    int8[4,4] w, float ws = {0.01}, int8 wz = {0}, float s = {0.02}, uint8 z = {128}, float t = {0.05}, uint8 u = {120}
  > {
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wd = DequantizeLinear(w, ws, wz)
"""


def quantized(nodes: str, outputs: str = "float[N,4] y") -> Model:
    return Model.of(parse(HEAD.replace("OUTPUTS", outputs) + nodes + "}"))


def floating(model: Model, *rectified: str) -> Model:
    """The model with products that output floats."""
    found = model.copy()
    kept = with_float_outputs(list(found.graph.node), {output.name for output in found.graph.output}, rectified)
    replace_all(found.graph.node, kept)
    return found


PAIR = "aq = QuantizeLinear(a, t, u) ad = DequantizeLinear(aq, t, u) "

CHOICE = """c = Constant<value = bool[1] {1}>()
    y = If(c) <then_branch = g () => (float[N,4] p) { p = Softmax(ad) },
               else_branch = h () => (float[N,4] q) { q = Sigmoid(ad) }>"""


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (f"a = MatMul(xd, wd) {PAIR} y = Softmax(ad)", ["a = MatMul (xd, wd)", "y = Softmax (a)"]),
        (f"a = Gemm(xd, wd) {PAIR} y = Softmax(ad)", ["a = Gemm (xd, wd)", "y = Softmax (a)"]),
        ("a = MatMul(xd, wd) aq = QuantizeLinear(a, t, u) y = DequantizeLinear(aq, t, u)", ["y = MatMul (xd, wd)"]),
    ],
)
def test_what_floats_alone_read_is_not_rounded(nodes: str, expected: list[str]) -> None:
    model = quantized(nodes)
    found = floating(model)
    kept = [printer.to_text(node).strip() for node in found.graph.node if node.output[0] not in {"xq", "xd", "wd"}]
    assert kept == expected
    feeds = {"x": np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32)}
    before, after = (Session(one).run(feeds)[0] for one in (model, found))
    np.testing.assert_allclose(before, after, atol=0.03)
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    "nodes",
    [
        f"a = MatMul(xd, wd) {PAIR} y = MatMul(ad, wd)",  # the next layer reads integers
        f"a = MatMul(xd, wd) {PAIR} b = Add(ad, xd) bq = QuantizeLinear(b, t, u) y = DequantizeLinear(bq, t, u)",
        f"a = MatMul(x, wd) {PAIR} y = Softmax(ad)",  # it computes in floats
        f"a = Add(xd, xd) {PAIR} y = Softmax(ad)",
        f"a = MatMul(xd, wd) {PAIR} {CHOICE}",  # a body reads it
    ],
)
def test_what_integers_read_is(nodes: str) -> None:
    model = quantized(nodes)
    assert list(floating(model).graph.node) == list(model.graph.node)


def test_several_readers_of_floats() -> None:
    outputs = "float[N,4] y, float[N,4] v, float[N,4] ad"
    found = floating(quantized(f"a = MatMul(xd, wd) {PAIR} y = Softmax(ad) v = Sigmoid(ad)", outputs))
    texts: Any = [printer.to_text(node).strip() for node in found.graph.node][-3:]
    assert texts == ["ad = MatMul (xd, wd)", "y = Softmax (ad)", "v = Sigmoid (ad)"]


@pytest.mark.parametrize("value", ["a", "ad"])
def test_what_rounding_rectifies_stays_rounded(value: str) -> None:
    model = quantized(f"a = MatMul(xd, wd) {PAIR} y = Softmax(ad)")
    assert list(floating(model, value).graph.node) == list(model.graph.node)
