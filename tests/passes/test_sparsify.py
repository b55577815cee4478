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
from onnxprune.passes import Facts, Sparsify
from onnxprune.passes.base import need
from onnxprune.runtime.session import Session
from onnxprune.sparse.layers import Layer, find
from onnxprune.sparse.patterns import parse_pattern
from sparse_nets import NET, X, ready

METHODS = ("admm", "obs", "wanda", "magnitude", "random")


def sparse(model: Model, facts: Facts, counts: Mapping[str, int], step: Sparsify) -> Model:
    facts.sparse = [(layer, counts.get(layer.name, layer.size)) for layer in find(model, need(facts.coupling, "coupling"))]
    return step.run(model, facts)


def gap(model: Model, other: Model) -> float:
    (a,), (b,) = Session(model).run({"x": X}), Session(other).run({"x": X})
    return float(np.square(a - b).mean() / a.var())


def test_before_and_expected() -> None:
    """The graph stays as it is; the smallest weights are zero, the others as they were."""
    model, facts = ready("(float[N,4,8,8] x) => (float[N,2,8,8] y) <float[2,4,1,1] w> { y = Conv(x, w) }")
    w = np.array([[1, -5, 2, 0.5], [3, -0.25, 4, -6]], np.float32).reshape(2, 4, 1, 1)
    model.weights["w"] = Weight("w", None, w)
    facts.calibration = None
    result = sparse(model, facts, {"w": 5}, Sparsify())
    expected = np.array([[0, -5, 2, 0], [3, 0, 4, -6]], np.float32).reshape(2, 4, 1, 1)
    assert onnx.printer.to_text(result.proto) == onnx.printer.to_text(model.proto)
    assert np.array_equal(result.weights["w"].array(), expected)
    assert not np.signbit(result.weights["w"].array()[expected == 0]).any()
    assert np.array_equal(model.weights["w"].array(), w)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1", "1x2", "channel", "filter"])
def test_masks_survive_to_the_bit(method: str, pattern: str) -> None:
    model, facts = ready()
    shape = parse_pattern(pattern)
    layers = find(model, need(facts.coupling, "coupling"))
    inner = next(layer for layer in layers if layer.name == "inner")
    keep = shape.most(inner.array(model).shape) if shape.fixed else inner.size // 2
    result = sparse(model, facts, {"inner": keep}, Sparsify(pattern, method))
    assert np.count_nonzero(result.weights["inner"].array()) <= keep
    if pattern == "unstructured":
        assert np.count_nonzero(result.weights["inner"].array()) == keep
    assert inner.obeys(result, shape)
    assert all(np.count_nonzero(result.weights[layer.name].array()) == layer.size for layer in layers if layer is not inner)


def test_repair_lowers_the_error_and_admm_is_the_best() -> None:
    gaps = {}
    for method in METHODS:
        for repair in (False, True):
            model, facts = ready()
            gaps[method, repair] = gap(
                model, sparse(model, facts, {"inner": 230, "skip": 26}, Sparsify("unstructured", method, repair))
            )
    assert all(gaps[method, True] < gaps[method, False] for method in METHODS)
    assert gaps["admm", True] == min(gaps.values())
    assert gaps["random", True] > gaps["magnitude", True]


def test_without_repair_other_weights_stay() -> None:
    for method in ("wanda", "magnitude"):
        model, facts = ready()
        result = sparse(model, facts, {"inner": 230}, Sparsify("unstructured", method, repair=False))
        before, after = model.weights["inner"].array(), result.weights["inner"].array()
        assert np.array_equal(after[after != 0], before[after != 0])
        assert all(result.weights[name] is weight for name, weight in model.weights.items() if name != "inner")


def test_layers_behind_are_refit_though_they_stay_dense() -> None:
    model, facts = ready()
    result = sparse(model, facts, {"inner": 60}, Sparsify("unstructured", "admm"))
    changed = {name for name, weight in model.weights.items() if result.weights[name] is not weight}
    assert changed >= {"inner", "depth", "last"}
    assert not changed & {"first", "skip", "scale"}


def test_layers_that_the_facts_leave_out_are_left_alone() -> None:
    model, facts = ready()
    facts.sparse = [(layer, 60) for layer in find(model, need(facts.coupling, "coupling")) if layer.name == "inner"]
    result = Sparsify("unstructured", "admm").run(model, facts)
    assert result.weights["last"] is model.weights["last"]


def test_half_precision_is_fitted_in_float32() -> None:
    model, facts = ready(NET.replace("float[", "float16["), float32=True)
    result = sparse(model, facts, {"inner": 200}, Sparsify("unstructured", "admm"))
    after = result.weights["inner"].array()
    assert after.dtype == np.float16
    assert 0 < np.count_nonzero(after) <= 200


def test_few_samples_do_no_harm() -> None:
    model, facts = ready()
    facts.calibration = Calibration.of(open_samples({"x": X[:1]}, model.inputs), need(facts.shapes, "shapes"))
    cut, fitted = (
        sparse(model, facts, {"inner": 200}, Sparsify("unstructured", "magnitude", repair)) for repair in (False, True)
    )
    assert gap(model, fitted) < 2 * gap(model, cut)


def test_a_pattern_that_did_not_come_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, facts = ready()
    monkeypatch.setattr(Layer, "zeros", lambda *_: 0)
    with pytest.raises(PassError, match="inner: has not become unstructured with 200 weights"):
        sparse(model, facts, {"inner": 200}, Sparsify())
