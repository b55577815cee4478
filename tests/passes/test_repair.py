"""Readers that are re-solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import prune
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.prune import Recipe
from onnxprune.passes import Couple, Normalize, PruneChannels, Repair
from onnxprune.passes.analysis import Analysis
from onnxprune.passes.base import Fitted
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


@dataclass(frozen=True)
class Cut:
    """A model, its groups, and the pruned one."""

    whole: Analysis
    plan: Plan
    pruned: Model

    @classmethod
    def of(cls, model: Model, keep: dict[str, list[int]]) -> Cut:
        whole = Couple().run(Normalize().run(model))
        plan = Plan({name: np.array(kept) for name, kept in keep.items()})
        return cls(whole, plan, PruneChannels().run(whole, plan))

    def repaired(self, seed: int = 0) -> Fitted:
        feeds = self.whole.calibration(open_samples({"x": X}, self.whole.model.inputs)).every
        return Repair(seed).run(self.pruned, self.whole, self.plan, feeds)


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
    cut = Cut.of(model, {group: [0, 1, 2, 3, 4]})
    assert gap(cut.whole.model, cut.pruned) > 1e-2
    assert gap(cut.whole.model, cut.repaired().model) < 1e-6


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise"])
def test_repair_never_hurts(name: str) -> None:
    model = Model.of(parse(NETS[name]))
    groups = Couple().run(Normalize().run(model)).coupling.groups
    cut = Cut.of(model, {group.id: list(range(0, group.size, 2)) for group in groups})
    found = cut.repaired()
    assert gap(cut.whole.model, found.model) < gap(cut.whole.model, cut.pruned)
    assert found.repairs
    assert all(done.after <= done.before for done in found.repairs)
    shapes = {name: weight.shape for name, weight in cut.pruned.weights.items()}
    assert shapes.items() <= {name: weight.shape for name, weight in found.model.weights.items()}.items()


def test_readers_that_nothing_has_changed_for_stay_as_they_are() -> None:
    cut = Cut.of(Model.of(parse(NETS["chain"])), {})
    found = cut.repaired()
    assert found.model.weights == cut.whole.model.weights
    assert found.repairs == ()


def test_the_same_twice() -> None:
    cut = Cut.of(Model.of(parse(DEPENDENT["Conv"])), {"a:0": [0, 2, 3]})
    first, again = (cut.repaired(1).model.to_proto().SerializeToString() for _ in range(2))
    assert first == again


def test_the_interface_and_the_graph_stay() -> None:
    cut = Cut.of(Model.of(parse(DEPENDENT["Conv"])), {"a:0": [0, 2, 3]})
    before = cut.pruned.to_proto().SerializeToString()
    repaired = cut.repaired().model
    assert cut.pruned.to_proto().SerializeToString() == before
    assert [node.op_type for node in repaired.graph.node] == [node.op_type for node in cut.pruned.graph.node]
    assert len(repaired.graph.node[1].input) == 3  # a bias came


@pytest.mark.parametrize("repair", [True, False])
def test_layers_in_branches_are_not_repaired_which_is_said(repair: bool) -> None:
    text = """(float[N,8] x, bool c) => (float[N,4] y) <float[8,16] w, float[16] b, float[16,4] v, float[16,4] u> {
      a = Gemm(x, w, b)
      r = Relu(a)
      y = If(c) <then_branch = t () => (float[N,4] p) { [yes] p = MatMul(r, v) },
                 else_branch = e () => (float[N,4] q) { [no] q = MatMul(r, u) }>
    }"""
    samples = {"x": np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32), "c": np.array(True)}
    report = prune(parse(text), Recipe(target="params=0.6", repair=repair), samples=samples).report
    note = "in branches or loops, where samples do not show what is computed: yes, no read less, and were not repaired"
    assert (note in report.notes) == repair
