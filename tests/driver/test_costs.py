"""What a model costs where nothing that is multiplied changes."""

from __future__ import annotations

import pytest

import onnxprune
from command import net
from onnxprune.driver.costs import before_and_after, cost_of
from onnxprune.driver.prune import analyze
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.passes import Couple


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
