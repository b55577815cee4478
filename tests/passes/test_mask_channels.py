"""Before and Expected: every shape stays, and zeros stand where the plan would cut."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, assert_same_graph, both, parse, some
from onnxprune.axes.factors import index
from onnxprune.axes.plan import Plan
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.passes import MaskChannels


@pytest.mark.parametrize("name", NETS)
def test_the_graph_stays_and_removed_positions_are_zero(name: str) -> None:
    found = analyze(parse(NETS[name]))
    keep = {group.id: some(group.size) for group in found.coupling.groups}
    positions = {group.factor: np.array(keep[group.id]) for group in found.coupling.groups}
    _, masked = both(found, keep)
    assert_same_graph(masked, found.model.to_proto())
    for value, weight in found.model.weights.items():
        expected = np.zeros(weight.shape)
        kept = np.ix_(*(index(factor, positions) for factor in found.coupling.axes[value])) if weight.shape else ()
        expected[kept] = weight.array()[kept]
        np.testing.assert_array_equal(masked.weights[value].array(), expected, value)


def test_values_by_hand() -> None:
    before = parse(
        "(float[N,2] x) => (float[N,2] y) <float[2,3] w, float[3] b, float[3,2] v> { a = Gemm(x, w, b)\n y = MatMul(a, v) }"
    )
    _, masked = both(analyze(before), {"w:1": [0, 2]})
    weights = Model.of(before).weights
    np.testing.assert_array_equal(masked.weights["w"].array(), weights["w"].array() * [1, 0, 1])
    np.testing.assert_array_equal(masked.weights["b"].array(), weights["b"].array() * [1, 0, 1])
    np.testing.assert_array_equal(masked.weights["v"].array(), weights["v"].array() * [[1], [0], [1]])
    assert masked.weights["w"].array().dtype == np.float32


def test_an_empty_plan_changes_nothing() -> None:
    found = analyze(parse(NETS["residual"]))
    assert MaskChannels().run(found, Plan()) is found.model
    assert MaskChannels().run(found, Plan({"w1:0": np.array([0, 1])})) is not found.model
