"""What data says about positions."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.linear.moments import Statistics, collect
from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import SAMPLES
from onnxprune.passes import Couple, Normalize
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.data_criteria import Problem, calibrated

MLP = """(float[N,6] x) => (float[N,3] y) <float[6,8] a, float[8] b, float[8,3] c, float[3] d> {
  h = MatMul(x, a)
  i = Add(h, b)
  r = Relu(i)
  o = MatMul(r, c)
  y = Add(o, d)
}"""
X = np.random.default_rng(1).standard_normal((256, 6)).astype(np.float32)

CALIBRATED = [name for name, entry in CRITERIA.items() if entry.needs == {SAMPLES}]


def prepared(text: str, x: np.ndarray, change: dict[str, np.ndarray] | None = None) -> tuple[Analysis, Statistics]:
    model = Model.of(parse(text))
    for name, array in (change or {}).items():
        model.weights[name] = Weight(name, None, array.astype(np.float32))
    analysis = Couple().run(Normalize().run(model))
    calibration = analysis.calibration(open_samples({"x": x}, model.inputs))
    return analysis, collect(analysis.model, analysis.coupling, calibration.every)


@pytest.mark.parametrize("criterion", CALIBRATED)
def test_a_position_that_nothing_comes_from_goes_first(criterion: str) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((6, 8)), rng.standard_normal(8)
    a[:, 5], b[5] = 0, -1  # never fires
    analysis, found = prepared(MLP, X, {"a": a, "b": b})
    (scores,) = calibrated(analysis.model, analysis.coupling, criterion, found).values()
    assert scores.argmin() == 5
    assert scores.mean() == pytest.approx(1)


def test_a_duplicate_costs_nothing_after_repair_and_much_without() -> None:
    """What obs sees and what looks at positions one by one does not."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((6, 8)), np.ones(8)
    a[:, 2] = a[:, 6]
    analysis, found = prepared(MLP, X, {"a": a, "b": b})
    model, coupling = analysis.model, analysis.coupling
    (obs,) = calibrated(model, coupling, "obs", found).values()
    (wanda,) = calibrated(model, coupling, "wanda", found).values()
    first = np.argsort(obs)[0]
    assert first in {2, 6}
    assert obs[first] < 1e-2
    assert wanda[first] > 0.1


def test_a_constant_position_fluctuates_not_at_all() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((6, 8)), np.ones(8)
    a[:, 3], b[3] = 0, 12  # large, and always the same
    analysis, found = prepared(MLP, X, {"a": a, "b": b})
    model, coupling = analysis.model, analysis.coupling
    orders = {name: np.argsort(next(iter(calibrated(model, coupling, name, found).values()))) for name in CALIBRATED}
    assert orders["wanda"][-1] == 3
    assert orders["flap"][0] == orders["variance"][0] == orders["obs"][0] == 3


def test_products_of_activations_have_shares() -> None:
    text = """(float[N,5,6] x) => (float[N,5,5] y) <float[6,4] q, float[6,4] k> {
      a = MatMul(x, q)
      b = MatMul(x, k)
      t = Transpose<perm = [0,2,1]>(b)
      y = MatMul(a, t)
    }"""
    x = np.random.default_rng(5).standard_normal((64, 5, 6)).astype(np.float32)
    q = np.random.default_rng(6).standard_normal((6, 4))
    q[:, 1] = 0
    analysis, found = prepared(text, x, {"q": q})
    model, coupling = analysis.model, analysis.coupling
    (group,) = coupling.groups
    problem = Problem.of(model, coupling, group, found)
    assert not problem.parts
    (shares,) = problem.meetings
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == 0
    assert len(problem.losses()) == 1


def test_groups_that_nothing_sums_over_are_scored_by_weights() -> None:
    analysis, found = prepared(NETS["gate"], np.random.default_rng(7).standard_normal((32, 3, 8, 8)).astype(np.float32))
    model, coupling = analysis.model, analysis.coupling
    empty = Statistics((), {}, (), {})
    scores = calibrated(model, coupling, "obs", empty)
    assert set(scores) == {group.id for group in coupling.groups}
    assert all(np.isfinite(values).all() and (values > 0).any() for values in scores.values())
    assert found.readers
