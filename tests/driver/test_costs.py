"""Costs in reports are those of what is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import parse
from onnxprune.axes.plan import Plan
from onnxprune.driver.apply import carry_out
from onnxprune.driver.costs import outcome, price
from onnxprune.driver.prune import make_plan, prune
from onnxprune.options.prune import Recipe

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
