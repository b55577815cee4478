"""Distillation of what a search found: when it is taken, by distillers whose outcome is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from onnxprune.driver.distilling import DISTILLATION, Distilled, distilled
from onnxprune.driver.levers.base import Made, Mixture, Step
from onnxprune.driver.optimize import OptimizeResult, optimize
from onnxprune.driver.progress import Stages
from onnxprune.driver.trials import Trial
from onnxprune.errors import OptionError, RequirementError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.optimize import OptimizeRecipe
from optimizable import X, clock, net, steady_table


@pytest.fixture(autouse=True)
def steady(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    steady_table(tmp_path_factory, monkeypatch)


@dataclass
class Known:
    """A distiller that says what it moved, and changes the last bias by a number."""

    after: float
    bias: float = 0.0
    fails: str = ""
    refuses: str = ""

    def check(self, model: Model) -> None:
        if self.refuses:
            raise OptionError(self.refuses)

    def __call__(self, student: Model, teacher: Model, tell: Callable[[str], Any]) -> Distilled:
        if self.fails:
            raise RequirementError(self.fails)
        model = student.copy()
        model.weights["b4"] = Weight("b4", None, np.asarray(model.weights["b4"].array() + np.float32(self.bias)))
        return Distilled(model, "distilled for 3 epochs", 0.5, self.after)


def run(distil: Known) -> OptimizeResult:
    return optimize(
        net(), OptimizeRecipe(target="latency=0.6", metric="mse"), samples={"x": X}, clock=clock(int8=3.0), distil=distil
    )


def test_what_helps_is_taken_and_has_a_row_of_its_own() -> None:
    result = run(Known(0.25, bias=1e-4))
    *before, last = result.report.levers
    assert (last.lever, last.choice, last.exact) == (DISTILLATION, "distilled for 3 epochs", False)
    assert list(last.drift) == ["distilled"]
    assert last.score == result.report.score.pruned != before[-1].score
    assert [row["choices"].get(DISTILLATION) for row in result.report.tried if row["chosen"]] == ["distilled for 3 epochs"]
    assert result.report.chosen.endswith("distilled for 3 epochs")
    assert any("from 0.5000 to 0.2500" in note for note in result.report.notes)
    assert result.report.seconds.keys() >= {DISTILLATION}
    assert result.report.after.macs < result.report.before.macs


@pytest.mark.parametrize(
    ("distil", "note"),
    [
        (Known(0.5, bias=1e-4), "from 0.5000 to 0.5000 off the original's, on samples held out of --data: not taken"),
        (Known(0.25, fails="the loss is nan"), "distillation: the loss is nan"),
    ],
)
def test_what_does_not_help_leaves_the_model_as_it_was(distil: Known, note: str) -> None:
    result = run(distil)
    assert DISTILLATION not in [lever.lever for lever in result.report.levers]
    assert any(note in one for one in result.report.notes)


def test_layers_with_sparse_kernels_are_not_trained() -> None:
    made = Made(Mixture(), Model.of(net()))
    made = made.then(Step("zeros", "zeros", {"refit": made.model}, kernels=(Mock(),)))
    trial = Trial(made.mixture, 0.5, 0.5, 0.9)
    found = distilled(Mock(), Mock(), trial, made, Known(0.25), Stages(None))
    assert found == (trial, made, "distillation: layers with sparse kernels cannot be trained: leave --kernels out")


def test_the_samples_that_judge_must_still_allow_it() -> None:
    recipe = OptimizeRecipe(max_drop="5%", metric="mse")
    result = optimize(net(), recipe, samples={"x": X}, clock=clock(int8=3.0), distil=Known(0.25, bias=10.0))
    assert result.report.score.original - result.report.score.pruned <= 0.05
    assert any("the samples that judge do not allow it: not taken" in note for note in result.report.notes)


def test_what_is_wrong_is_told_before_the_search() -> None:
    with pytest.raises(OptionError, match="no such samples"):
        run(Known(0.25, refuses="no such samples"))
