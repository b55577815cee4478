"""Rounding towards the original as `quantize` does it."""

from __future__ import annotations

import numpy as np
import pytest

from int8_nets import net
from onnxprune.data.calibration import CalibrationFeeds
from onnxprune.data.samples import open_samples
from onnxprune.driver.int8_rounding import Rounder
from onnxprune.driver.quantize import quantize
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Normalize, RoundWeights
from onnxprune.passes.base import Fitted, silent

X = np.random.default_rng(1).standard_normal((600, 4, 8, 8)).astype(np.float32)


def test_refit_is_the_default_and_nearest_leaves_what_the_quantizer_rounds() -> None:
    refit, nearest = (quantize(net(), QuantRecipe(rounding=kind), samples={"x": X[:64]}) for kind in ("refit", "nearest"))
    assert QuantRecipe().rounding == "refit"
    assert (refit.report.rounded, nearest.report.rounded) == (4, 0)
    assert refit.report.drift
    assert nearest.report.drift
    assert refit.report.drift.relative < nearest.report.drift.relative
    assert "rounding" in refit.report.seconds
    assert "rounding" not in nearest.report.seconds


def test_where_the_model_cannot_be_analysed_the_nearest_stay_and_a_note_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ModelError("shapes are not known")

    monkeypatch.setattr(Normalize, "run", fails)
    result = quantize(net(), samples={"x": X[:64]}, agreement=False)
    assert result.report.rounded == 0
    assert "weights were rounded to the nearest integers: shapes are not known" in result.report.notes


def test_of_many_samples_a_part_is_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def run(_: object, quantized: Model, __: object, feeds: CalibrationFeeds, ___: object) -> Fitted:
        seen.append(sum(len(feed["x"]) for feed in feeds))
        return Fitted(quantized)

    monkeypatch.setattr(RoundWeights, "run", run)
    model = Model.of(net())
    for count in (100, 600):
        samples = open_samples({"x": X[:count]}, model.inputs)
        assert Rounder(model, samples, reduced=True).run(model, silent).model is model
    assert seen == [100, 300]
