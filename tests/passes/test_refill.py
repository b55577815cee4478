"""What repair may have changed is taken from a file, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Couple, Normalize, PruneChannels, Refill, Repair
from onnxprune.passes.analysis import Analysis

X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
NETS = {
    "a bias that is new": """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[6,3,1,1] a, float[4,6,3,3] b> {
      h = Conv(x, a)
      y = Conv<pads = [1,1,1,1]>(h, b)
    }""",
    "a rectifier": """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[6,3,1,1] a, float[4,6,3,3] b> {
      h = Conv(x, a)
      r = Relu(h)
      y = Conv<pads = [1,1,1,1]>(r, b)
    }""",
    "a normalisation": """(float[N,3,8,8] x) => (float[N,4,8,8] y)
      <float[6,3,1,1] a, float[4,6,1,1] b, float[4] c, float[4] s, float[4] m, float[4] v = {0.5, 1, 2, 1}> {
      h = Conv(x, a)
      g = Conv(h, b)
      y = BatchNormalization(g, s, c, m, v)
    }""",
    "a sum with a bias": """(float[N,3,8,8] x) => (float[N,3,8,4] y) <float[8,6] a, float[6,4] b, float[4] c> {
      h = MatMul(x, a)
      m = MatMul(h, b)
      y = Add(m, c)
    }""",
}


def cut_to(text: str, kept: list[int]) -> tuple[Analysis, Plan, Model]:
    whole = Couple().run(Normalize().run(Model.of(parse(text))))
    (group,) = whole.coupling.groups
    plan = Plan({group.id: np.array(kept)})
    return whole, plan, PruneChannels().run(whole, plan)


@pytest.mark.parametrize("name", NETS)
def test_a_repaired_model_is_the_pruned_one_with_its_weights(name: str) -> None:
    whole, plan, pruned = cut_to(NETS[name], [0, 2, 5])
    feeds = whole.calibration(open_samples({"x": X}, whole.model.inputs)).every
    repaired = Repair().run(pruned, whole, plan, feeds).model
    refilled = Refill().run(pruned, whole, plan, repaired)
    assert refilled.model.graph == repaired.graph
    assert refilled.model.weights.keys() == repaired.weights.keys()
    assert all(weight.equals(repaired.weights[name]) for name, weight in refilled.model.weights.items())
    assert {one.split("__")[0] for one in refilled.repaired} <= {"b", "c", "s", "m", "v"}
    assert "b" in refilled.repaired


def test_a_model_that_was_not_repaired_and_one_that_was_damaged() -> None:
    whole, plan, pruned = cut_to(NETS["a rectifier"], [0, 2, 5])
    assert Refill().run(pruned, whole, plan, pruned).repaired == ()
    damaged = pruned.copy()
    damaged.weights["a"] = Weight("a", None, damaged.weights["a"].array() * 2)
    damaged.weights["b"] = Weight("b", None, np.ones((4, 2, 3, 3), np.float32))
    refilled = Refill().run(pruned, whole, plan, damaged)
    assert refilled.repaired == ()
    assert refilled.model.weights["a"] is pruned.weights["a"]
    assert refilled.model.weights["b"] is pruned.weights["b"]
