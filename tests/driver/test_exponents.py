"""Which exponent wins."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.driver import exponents
from onnxprune.driver.exponents import best_exponent, drifted, small_enough
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight

X = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
FOUND = analyze(parse(NETS["chain"]))
CALIBRATION = FOUND.calibration(open_samples({"x": X}, FOUND.model.inputs))


def scaled(factor: float) -> Model:
    model = FOUND.model.copy()
    model.weights["w3"] = Weight("w3", None, (factor * model.weights["w3"].array()).astype(np.float32))
    return model


def test_the_exponent_of_the_nearest_model() -> None:
    told: list[str] = []
    tried = ((1.0, 1.5, 0.5), scaled, scaled(1.4), CALIBRATION.held, told.append, "sparsity")
    assert best_exponent(*tried) == 1.5
    assert told == [f"trying ways to share the sparsity out ({number} of 3)" for number in (1, 2, 3)]


def test_the_first_of_equals() -> None:
    assert best_exponent((1.5, 1.0), lambda _: scaled(1), scaled(2), CALIBRATION.held, lambda _: None, "target") == 1.5


def test_what_is_equal_has_not_drifted() -> None:
    assert drifted(scaled(1), FOUND.model, CALIBRATION.held) == pytest.approx(0, abs=1e-9)
    assert drifted(scaled(1.1), FOUND.model, CALIBRATION.held) < drifted(scaled(2), FOUND.model, CALIBRATION.held)


def test_work_is_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert small_enough(FOUND, CALIBRATION)
    work = FOUND.costs.cost({}).macs * 32
    monkeypatch.setattr(exponents, "_WORK", work)
    assert small_enough(FOUND, CALIBRATION)
    monkeypatch.setattr(exponents, "_WORK", work - 1)
    assert not small_enough(FOUND, CALIBRATION)
