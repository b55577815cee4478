"""What layers are measured to cost."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Weight
from onnxprune.linear.moments import collect
from onnxprune.runtime.session import Session
from onnxprune.sparse.curves import KEPT_SHARES, measure_curves
from onnxprune.sparse.layers import find_layers
from onnxprune.sparse.patterns import Unstructured
from onnxprune.sparse.solve import Sparser
from onnxprune.verify.divergence import divergence
from sparse_nets import ready


def curves(sparser: Sparser) -> dict[str, dict[int, float]]:
    found, calibration = ready()
    layers = find_layers(found.model, found.coupling)[0]
    statistics = collect(found.model, found.coupling, calibration.fit)
    return measure_curves(found.model, layers, statistics, calibration.held, sparser, lambda _: None)


def test_errors_rise_as_weights_go_and_repair_lowers_them() -> None:
    cut, fitted = (curves(Sparser(Unstructured(), "magnitude", refit)) for refit in (False, True))
    for name, curve in fitted.items():
        assert len(curve) == len(KEPT_SHARES)
        assert list(curve.values()) == sorted(curve.values())
        assert curve.keys() == cut[name].keys()
    assert sum(sum(curve.values()) for curve in fitted.values()) < sum(sum(curve.values()) for curve in cut.values())


def test_a_point_is_the_divergence_of_a_model_with_that_layer_cut() -> None:
    found, calibration = ready()
    model = found.model
    keep, error = next(iter(curves(Sparser(Unstructured(), "magnitude", refit=False))["inner"].items()))
    w = model.weights["inner"].array()
    bound = np.sort(np.abs(w).ravel())[-keep]
    model_cut = model.copy()
    model_cut.weights["inner"] = Weight("inner", None, np.where(np.abs(w) >= bound, w, 0).astype(np.float32))
    expected = np.mean([divergence(Session(model_cut).run(feed), Session(model).run(feed)) for feed in calibration.held])
    assert error == pytest.approx(expected, rel=1e-3)


def test_layers_of_too_many_features_are_measured_without_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.linear.moments.MOST_FEATURES", 1)
    for curve in curves(Sparser(Unstructured(), "admm")).values():
        assert len(curve) == len(KEPT_SHARES)
        assert 0 < curve[max(curve)] == min(curve.values())  # without a fit, more zeros need not always cost more
