"""Readers that are re-solved."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Couple, Facts, Normalize, Pipeline, PruneChannels, Repair
from onnxprune.passes.base import need
from onnxprune.runtime.session import Session

X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
DEPENDENT = {
    "Conv": """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[6,3,1,1] a, float[4,6,3,3] b> {
      h = Conv(x, a)
      y = Conv<pads = [1,1,1,1]>(h, b)
    }""",
    "a grouped reader": """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[6,3,1,1] a, float[6,1,3,3] d, float[4,6,1,1] b> {
      h = Conv(x, a)
      g = Conv<pads = [1,1,1,1], group = 6>(h, d)
      y = Conv(g, b)
    }""",
    "a residual sum": """(float[N,3,8,8] x) => (float[N,3,8,8] y) <float[6,3,1,1] a, float[3,6,1,1] b> {
      h = Conv(x, a)
      s = Conv(h, b)
      y = Add(s, x)
    }""",
    "MatMul and Add": """(float[N,3,8,8] x) => (float[N,3,8,4] y) <float[8,6] a, float[6,4] b, float[4] c> {
      h = MatMul(x, a)
      m = MatMul(h, b)
      y = Add(m, c)
    }""",
    "MatMul": "(float[N,3,8,8] x) => (float[N,3,8,4] y) <float[8,6] a, float[6,4] b> { h = MatMul(x, a)  y = MatMul(h, b) }",
}


def cut(model: Model, keep: dict[str, list[int]]) -> tuple[Model, Model, Facts]:
    """The normalised model, the pruned one, and facts to repair it with."""
    model, facts = Pipeline([Normalize(), Couple()]).run(model)
    facts.calibration = Calibration.of(open_samples({"x": X}, model.inputs), need(facts.shapes, "shapes"))
    facts.original, facts.plan = model, Plan({name: np.array(kept) for name, kept in keep.items()})
    return model, PruneChannels().run(model, facts), facts


def gap(model: Model, other: Model) -> float:
    (a,), (b,) = Session(model).run({"x": X}), Session(other).run({"x": X})
    return float(np.square(a - b).mean() / a.var())


def dependent(text: str) -> Model:
    """Position 5 of the hidden width is a sum of others."""
    model = Model.of(parse(text))
    a = model.weights["a"].array().copy()
    if a.ndim == 4:
        a[5] = a[0] - 0.5 * a[3]
    else:
        a[:, 5] = a[:, 0] - 0.5 * a[:, 3]
    model.weights["a"] = Weight("a", None, a)
    if "d" in model.weights:  # the same filter in every channel, so that sums pass
        d = model.weights["d"].array().copy()
        d[:] = d[0]
        model.weights["d"] = Weight("d", None, d)
    return model


@pytest.mark.parametrize("name", DEPENDENT)
def test_what_follows_from_the_rest_is_not_missed(name: str) -> None:
    model = dependent(DEPENDENT[name])
    group = "a:0" if model.weights["a"].array().ndim == 4 else "a:1"
    whole, pruned, facts = cut(model, {group: [0, 1, 2, 3, 4]})
    assert gap(whole, pruned) > 1e-2
    assert gap(whole, Repair().run(pruned, facts)) < 1e-6


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise"])
def test_repair_never_hurts(name: str) -> None:
    found, _ = Pipeline([Normalize(), Couple()]).run(Model.of(parse(NETS[name])))
    _, facts = Pipeline([Couple()]).run(found)
    keep = {group.id: list(range(0, group.size, 2)) for group in need(facts.coupling, "coupling").groups}
    whole, pruned, facts = cut(Model.of(parse(NETS[name])), keep)
    repaired = Repair().run(pruned, facts)
    assert gap(whole, repaired) < gap(whole, pruned)
    repairs = facts.repairs or ()
    assert repairs
    assert all(done.after <= done.before for done in repairs)
    shapes = {name: weight.shape for name, weight in pruned.weights.items()}
    assert shapes.items() <= {name: weight.shape for name, weight in repaired.weights.items()}.items()


def test_readers_that_nothing_has_changed_for_stay_as_they_are() -> None:
    whole, pruned, facts = cut(Model.of(parse(NETS["chain"])), {})
    assert Repair().run(pruned, facts).weights == whole.weights
    assert facts.repairs == []


def test_the_same_twice() -> None:
    model = Model.of(parse(DEPENDENT["Conv"]))
    _, pruned, facts = cut(model, {"a:0": [0, 2, 3]})
    first, again = (Repair(1).run(pruned, facts).to_proto().SerializeToString() for _ in range(2))
    assert first == again


def test_the_interface_and_the_graph_stay() -> None:
    _, pruned, facts = cut(Model.of(parse(DEPENDENT["Conv"])), {"a:0": [0, 2, 3]})
    before = pruned.to_proto().SerializeToString()
    repaired = Repair().run(pruned, facts)
    assert pruned.to_proto().SerializeToString() == before
    assert [node.op_type for node in repaired.graph.node] == [node.op_type for node in pruned.graph.node]
    assert len(repaired.graph.node[1].input) == 3  # a bias came
