"""Costs in reports are those of what is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from command import net
from nets import parse
from onnxprune.axes.plan import Plan
from onnxprune.driver.apply import carry_out
from onnxprune.driver.costs import before_and_after, cost_of, outcome, price
from onnxprune.driver.prune import analyze, make_plan, prune
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.passes import Couple

NET = """(float[N,8] x) => (float[N,4] y) <float[8,16] a, float[16,16] b, float[16,4] c, float[16] v> {
  h = MatMul(x, a) g = Add(h, v) r = Relu(g) k = MatMul(r, b) l = Add(k, v) t = Relu(l) y = MatMul(t, c)
}"""
SAMPLES = {"x": np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)}


@pytest.mark.parametrize("samples", [None, SAMPLES], ids=["cut", "repaired"])
def test_parameters_and_bytes_are_counted_in_what_is_written(samples: dict[str, np.ndarray] | None, tmp_path: Path) -> None:
    result = prune(parse(NET), Recipe(target="channels=0.5", align="1"), samples=samples)
    result.save(tmp_path / "small.onnx")
    written = onnx.load(tmp_path / "small.onnx").graph.initializer
    assert result.report.after.params == sum(math.prod(tensor.dims) for tensor in written if tensor.data_type == 1)
    assert result.report.after.size == (tmp_path / "small.onnx").stat().st_size
    assert result.report.obtained["params"] == result.report.after.params / result.report.before.params


def test_a_plan_that_is_carried_out_costs_what_it_was_to() -> None:
    plan, analysis = make_plan(parse(NET), Recipe(target="channels=0.5", align="1"))
    assert isinstance(plan, Plan)
    before, after, obtained = outcome(carry_out(parse(NET), plan, Recipe(), compare=False))
    assert price(analysis, plan)[0] == before
    assert price(analysis, plan)[1].params == after.params
    assert price(analysis, plan)[2]["macs"] == obtained["macs"]


def test_the_cost_is_that_of_the_analysis_and_only_bytes_change() -> None:
    model = Model.of(net())
    cost = cost_of(model)
    assert cost is not None
    assert cost == analyze(net()).costs.original()
    made = onnxprune.sparsify(net(), onnxprune.SparseRecipe(target="sparsity=0.9", encoding="auto", ends=True))
    assert made.report.before == cost
    assert made.report.after is not None
    assert (made.report.after.macs, made.report.after.params) == (cost.macs, cost.params)
    assert made.report.after.size == made.report.size[1] < cost.size
    assert before_and_after(cost, made.compiled) == {"before": cost, "after": made.report.after}


def test_a_model_that_cannot_be_analysed_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModelError("net.onnx: no")

    monkeypatch.setattr(Couple, "run", fail)
    assert cost_of(Model.of(net())) is None
    assert before_and_after(None, Model.of(net())) == {"before": None, "after": None}
    found = onnxprune.encode(net()).to_dict()
    assert (found["before"], found["after"]) == (None, None)
