"""One layer, its mask and its weights."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Array
from onnxprune.linear import regression
from onnxprune.linear.regression import Regression, with_ones
from onnxprune.sparse.layers import Layer
from onnxprune.sparse.patterns import Unstructured
from onnxprune.sparse.solve import Sparser
from sparse_nets import layers

RNG = np.random.default_rng(0)
LAST: Layer = layers()[1][-1]  # 8 channels, 10 outputs, no bias


def rows(count: int = 200, *, low: float = -np.inf) -> tuple[Regression, Array]:
    """A layer with a bias, whose target another matrix makes."""
    x = with_ones(RNG.standard_normal((1, count, 8)).astype(np.float32))
    start = RNG.standard_normal((1, 9, 10))
    y = (x @ start + 0.3 * RNG.standard_normal((1, count, 10))).astype(np.float32)
    return Regression(x, y, None, low, np.inf, True), start


def test_a_fit_behind_a_rectifier_need_not_match_what_is_cut_off() -> None:
    problem, start = rows(low=0.0)
    free = Regression(problem.x, problem.y, None, -np.inf, np.inf, True)
    rng = np.random.default_rng(0)
    aware, blind = (Sparser(Unstructured(), "admm").fit(LAST, which, start, 1e-3, 30, rng) for which in (problem, free))
    assert np.count_nonzero(aware[:, :-1]) <= 30
    assert problem.error(aware) < problem.error(blind)


def test_all_weights_stay_where_all_may(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, start = rows()
    found = Sparser(Unstructured(), "admm").fit(LAST, problem, start, 1e-3, 80, np.random.default_rng(0))
    assert problem.error(found) <= problem.error(start)
    assert np.count_nonzero(found) == 90


@pytest.mark.parametrize("method", ["admm", "obs"])
def test_what_stays_is_chosen_among_the_best_weights_and_not_those_of_the_original(method: str) -> None:
    """The rows are made by a few weights, which the original does not have."""
    rng = np.random.default_rng(1)
    made = rng.choice([-1, 1], 90).reshape(1, 9, 10) * (rng.random((1, 9, 10)) < 0.3)
    x = with_ones(rng.standard_normal((1, 400, 8)).astype(np.float32))
    problem = Regression(x, (x @ made).astype(np.float32), None, -np.inf, np.inf, True)
    keep = int(np.count_nonzero(made[:, :-1]))
    found = Sparser(Unstructured(), method).fit(LAST, problem, 5 * rng.standard_normal(made.shape), 1e-3, keep, rng)
    assert np.array_equal(found[:, :-1] != 0, made[:, :-1] != 0)


def test_too_many_features_get_a_mask_and_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "MOST_FEATURES", 8)
    problem, start = rows()
    assert problem.dual
    found = Sparser(Unstructured(), "admm").fit(LAST, problem, start, 1e-3, 40, np.random.default_rng(0))
    kept = found[:, :-1] != 0
    assert kept.sum() == 40
    assert np.array_equal(found[:, :-1][kept], start[:, :-1][kept])
    assert problem.residual(found, rectified=False).mean(1) == pytest.approx(0, abs=1e-5)


def test_damping_is_what_unseen_rows_like() -> None:
    many, start = rows(4000)
    few, judge, other = many.part(slice(0, 12)), many.part(slice(2000, 4000)), start + RNG.standard_normal(start.shape)
    sparser = Sparser(Unstructured(), "admm")
    assert sparser.damping(LAST, many.part(slice(0, 2000)), judge, other, 40) <= 1e-2
    assert sparser.damping(LAST, few, judge, start, 80) >= 1e-1
    assert sparser.damping(LAST, many, many, start, 40) == pytest.approx(1e-2)
