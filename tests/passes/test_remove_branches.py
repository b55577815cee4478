"""Branches taken out of graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import printer

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import linear_readers
from onnxprune.passes import Bypass, RemoveBranches
from onnxprune.pruning.branches import find_branches
from onnxprune.runtime.session import Session

WEIGHTS = "<float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3>"
X = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)


def both(text: str, outputs: str = "float[N,4,8,8] y") -> tuple[Any, Any]:
    """A graph whose first branch is bypassed, and without it."""
    analysis: Any = analyze(parse(f"(float[N,4,8,8] x) => ({outputs}) {WEIGHTS} {{ {text} }}"))
    layers = {reader.node.index for reader in linear_readers(analysis.model, analysis.coupling)}
    branches = find_branches(analysis.model, analysis.shapes, layers)[:1]
    bypassed = Bypass().run(analysis.model, branches)
    return bypassed, RemoveBranches().run(bypassed, branches)


def spelled(model: Any) -> list[str]:
    return [printer.to_text(node).strip() for node in model.graph.node]


def results(model: Any) -> list[Any]:
    return Session(model).run({"x": X})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a = Conv(x, w1) c = Conv(a, w2) s = Add(c, a) y = Conv(s, w3)",
            ["a = Conv (x, w1)", "y = Conv (a, w3)"],
        ),
        (
            "a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) s = Add(c, r) t = Relu(s) y = Conv(t, w3)",
            ["a = Conv (x, w1)", "r = Relu (a)", "y = Conv (r, w3)"],
        ),
        (
            "a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) s = Add(c, r) t = LeakyRelu(s) y = Conv(t, w3)",
            ["a = Conv (x, w1)", "r = Relu (a)", "t = LeakyRelu (r)", "y = Conv (t, w3)"],
        ),
        (
            "a = Conv(x, w1) c = Conv(a, w2) y = Add(c, a)",
            ["a = Conv (x, w1)", "y = Identity (a)"],
        ),
    ],
)
def test_before_and_expected(text: str, expected: list[str]) -> None:
    bypassed, removed = both(text)
    assert [line.replace(" <", "<") for line in spelled(removed)] == expected
    assert removed.weights.keys() < bypassed.weights.keys()
    np.testing.assert_allclose(results(removed)[0], results(bypassed)[0], rtol=1e-5)


def test_a_rectifier_that_is_an_output_stays() -> None:
    text = "a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) s = Add(c, r) y = Relu(s) z = Conv(y, w3)"
    _, removed = both(text, "float[N,4,8,8] y, float[N,4,8,8] z")
    assert spelled(removed)[2] == "y = Relu (r)"


def test_clipping_to_the_same_bounds_happens_once() -> None:
    bounds = "low = Constant<value_float=0.0>() high = Constant<value_float={}>() other = Constant<value_float=6.0>()"
    text = "a = Conv(x, w1) r = Clip(a, low, high) c = Conv(r, w2) s = Add(c, r) t = Clip(s, low, other) y = Conv(t, w3)"
    for high, count in (("6.0", 1), ("3.0", 2)):
        _, removed = both(bounds.format(high) + text)
        assert sum(node.op_type == "Clip" for node in removed.graph.node) == count
