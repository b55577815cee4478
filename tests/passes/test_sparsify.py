"""Layers made sparse, on nets in ONNX text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.errors import PassError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Sparsify
from onnxprune.passes.analysis import Analysis
from onnxprune.runtime.session import Session
from onnxprune.sparse.layers import Layer, find_layers
from onnxprune.sparse.patterns import parse_pattern
from sparse_nets import NET, X, ready

METHODS = ("admm", "obs", "wanda", "magnitude", "random")


def sparse(found: Analysis, calibration: Calibration | None, counts: Mapping[str, int], step: Sparsify) -> Model:
    layers = [(layer, counts.get(layer.name, layer.size)) for layer in find_layers(found.model, found.coupling)[0]]
    return step.run(found, layers, None if calibration is None else calibration.every).model


def gap(model: Model, other: Model) -> float:
    (a,), (b,) = Session(model).run({"x": X}), Session(other).run({"x": X})
    return float(np.square(a - b).mean() / a.var())


def test_before_and_expected() -> None:
    """The graph stays as it is; the smallest weights are zero, the others as they were."""
    found, _ = ready("(float[N,4,8,8] x) => (float[N,2,8,8] y) <float[2,4,1,1] w> { y = Conv(x, w) }")
    model = found.model
    w = np.array([[1, -5, 2, 0.5], [3, -0.25, 4, -6]], np.float32).reshape(2, 4, 1, 1)
    model.weights["w"] = Weight("w", None, w)
    result = sparse(found, None, {"w": 5}, Sparsify())
    expected = np.array([[0, -5, 2, 0], [3, 0, 4, -6]], np.float32).reshape(2, 4, 1, 1)
    assert onnx.printer.to_text(result.proto) == onnx.printer.to_text(model.proto)
    assert np.array_equal(result.weights["w"].array(), expected)
    assert not np.signbit(result.weights["w"].array()[expected == 0]).any()
    assert np.array_equal(model.weights["w"].array(), w)


@pytest.mark.parametrize("repair", [True, False])
def test_weights_become_numbers_that_float16_has(repair: bool) -> None:
    found, calibration = ready()
    wide = sparse(found, calibration, {"inner": 100}, Sparsify(method="admm", repair=repair))
    narrow = sparse(found, calibration, {"inner": 100}, Sparsify(method="admm", repair=repair, values="float16"))
    for name in ("inner", "skip"):
        array = narrow.weights[name].array()
        assert array.dtype == np.float32
        assert not np.array_equal(array, wide.weights[name].array())
        np.testing.assert_array_equal(array, wide.weights[name].array().astype(np.float16))


def test_a_weight_beyond_the_numbers_of_float16_stays() -> None:
    found, _ = ready("(float[N,4,8,8] x) => (float[N,2,8,8] y) <float[2,4,1,1] w> { y = Conv(x, w) }")
    found.model.weights["w"] = Weight("w", None, np.array([[1e5, 0.1, 2, 3], [4, 5, 6, 7]], np.float32).reshape(2, 4, 1, 1))
    result = sparse(found, None, {"w": 7}, Sparsify(values="float16"))
    assert sorted(result.weights["w"].array().reshape(-1)) == sorted(np.array([1e5, 0, 2, 3, 4, 5, 6, 7], np.float32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1", "1x2", "channel", "filter"])
def test_masks_survive_to_the_bit(method: str, pattern: str) -> None:
    found, calibration = ready()
    model = found.model
    shape = parse_pattern(pattern)
    layers = find_layers(model, found.coupling)[0]
    inner = next(layer for layer in layers if layer.name == "inner")
    keep = shape.most(inner.array(model).shape) if shape.fixed else inner.size // 2
    result = sparse(found, calibration, {"inner": keep}, Sparsify(pattern, method))
    assert np.count_nonzero(result.weights["inner"].array()) <= keep
    if pattern == "unstructured":
        assert np.count_nonzero(result.weights["inner"].array()) == keep
    assert inner.obeys(result, shape)
    assert all(np.count_nonzero(result.weights[layer.name].array()) == layer.size for layer in layers if layer is not inner)


def test_repair_lowers_the_error_and_admm_is_the_best() -> None:
    gaps = {}
    for method in METHODS:
        for repair in (False, True):
            found, calibration = ready()
            gaps[method, repair] = gap(
                found.model, sparse(found, calibration, {"inner": 230, "skip": 26}, Sparsify("unstructured", method, repair))
            )
    assert all(gaps[method, True] < gaps[method, False] for method in METHODS)
    assert gaps["admm", True] == min(gaps.values())
    assert gaps["random", True] > gaps["magnitude", True]


def test_without_repair_other_weights_stay() -> None:
    for method in ("wanda", "magnitude"):
        found, calibration = ready()
        model = found.model
        result = sparse(found, calibration, {"inner": 230}, Sparsify("unstructured", method, repair=False))
        before, after = model.weights["inner"].array(), result.weights["inner"].array()
        assert np.array_equal(after[after != 0], before[after != 0])
        assert all(result.weights[name] is weight for name, weight in model.weights.items() if name != "inner")


def test_layers_behind_are_refit_though_they_stay_dense() -> None:
    found, calibration = ready()
    model = found.model
    result = sparse(found, calibration, {"inner": 60}, Sparsify("unstructured", "admm"))
    changed = {name for name, weight in model.weights.items() if result.weights[name] is not weight}
    assert changed >= {"inner", "depth", "last"}
    assert not changed & {"first", "skip", "scale"}


def test_layers_that_are_left_out_are_left_alone() -> None:
    found, calibration = ready()
    layers = [(layer, 60) for layer in find_layers(found.model, found.coupling)[0] if layer.name == "inner"]
    result = Sparsify("unstructured", "admm").run(found, layers, calibration.every)
    assert result.model.weights["last"] is found.model.weights["last"]
    assert [repaired.node for repaired in result.repairs] == [layer.reader.name for layer, _ in layers]


def test_half_precision_is_fitted_in_float32() -> None:
    found, calibration = ready(NET.replace("float[", "float16["))
    result = sparse(found, calibration, {"inner": 200}, Sparsify("unstructured", "admm"))
    after = result.weights["inner"].array()
    assert after.dtype == np.float16
    assert 0 < np.count_nonzero(after) <= 200


def test_few_samples_do_no_harm() -> None:
    found, _ = ready()
    model, calibration = found.model, found.calibration(open_samples({"x": X[:1]}, found.model.inputs))
    cut, fitted = (
        sparse(found, calibration, {"inner": 200}, Sparsify("unstructured", "magnitude", repair)) for repair in (False, True)
    )
    assert gap(model, fitted) < 2 * gap(model, cut)


def test_a_pattern_that_did_not_come_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found, calibration = ready()
    monkeypatch.setattr(Layer, "zeros", lambda *_: 0)
    with pytest.raises(PassError, match="inner: has not become unstructured with 200 weights"):
        sparse(found, calibration, {"inner": 200}, Sparsify())
