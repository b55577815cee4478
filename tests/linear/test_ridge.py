"""What refit chooses: never worse than what is there on rows it did not fit, and what rows and second moments agree on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Array
from onnxprune.linear import regression
from onnxprune.linear.regression import Moments, Regression, with_ones
from onnxprune.linear.ridge import RIDGES, refit

INF = np.inf


def problem(seed: int, *, noise: float, low: float = -INF, rows: int = 200) -> tuple[Regression, Array, Array]:
    """Outputs that are linear in the features but for noise; the weights that make them, and others that are there."""
    rng = np.random.default_rng(seed)
    x = with_ones(rng.standard_normal((2, rows, 6), np.float32))
    true = rng.standard_normal((2, 7, 3))
    y = (x @ true + noise * rng.standard_normal((2, rows, 3))).astype(np.float32)
    return Regression(x, y, None, low, INF, affine=True), true, true + rng.standard_normal(true.shape)


def parts(whole: Regression) -> tuple[Regression, Regression, Regression]:
    rows = np.arange(whole.y.shape[1])
    return whole, whole.part(rows[rows % 4 != 3]), whole.part(rows[rows % 4 == 3])


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 3.0]), st.sampled_from([-INF, 0.0]))
def test_it_is_no_worse_where_it_was_not_fitted(seed: int, noise: float, low: float) -> None:
    whole, _, start = problem(seed, noise=noise, low=low)
    found = refit(*parts(whole), start)
    assert found.after <= found.before
    if found.weights is not None:
        assert whole.error(found.weights) < whole.error(start)


@given(st.integers(0, 2**31))
def test_without_noise_it_is_what_made_the_outputs(seed: int) -> None:
    whole, true, start = problem(seed, noise=0)
    found = refit(*parts(whole), start)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, true, atol=1e-2)
    assert found.after < 1e-4 * found.before


def test_what_is_best_already_stays() -> None:
    whole, true, _ = problem(1, noise=0)
    found = refit(*parts(whole), true)
    assert found.weights is None or np.abs(found.weights - true).max() < 1e-4


def test_what_a_rectifier_cuts_off_need_not_be_matched() -> None:
    """Half of the outputs are cut off; below the bound the targets are noise that a linear fit would follow."""
    whole, _, start = problem(3, noise=0, low=0.0, rows=400)
    wrong = np.where(whole.y < 0, -np.abs(np.random.default_rng(0).standard_normal(whole.y.shape)) * 20, whole.y)
    whole = Regression(whole.x, wrong.astype(np.float32), None, 0.0, INF, affine=True)
    found = refit(*parts(whole), start)
    blind = refit(*parts(Regression(whole.x, whole.y, None, -INF, INF, affine=True)), start)
    assert found.weights is not None
    assert blind.weights is not None
    assert whole.error(found.weights) < 0.6 * whole.error(blind.weights)


@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0]))
def test_second_moments_say_what_rows_say(seed: int, noise: float) -> None:
    whole, _, start = problem(seed, noise=noise)
    _, fit, judge = parts(whole)
    seen, unseen = fit.moments(start), judge.moments(start)
    for damping in (1e-4, 1e-1):
        step = seen.step(damping)
        np.testing.assert_allclose(start + step, fit.solver(damping).solve(start, start), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(unseen.error(step), judge.error(start + step), rtol=1e-3)
    together = seen + unseen
    np.testing.assert_allclose(together.gram, whole.gram, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(together.error(step), whole.error(start + step), rtol=1e-3)


def test_more_features_than_fit_are_refitted_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, true, start = problem(5, noise=0)
    monkeypatch.setattr(regression, "MOST_FEATURES", 2)
    assert whole.dual
    found = refit(*parts(whole), start)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, true, atol=1e-2)


@pytest.mark.parametrize("noise", [0.01, 1.0, 10.0])
def test_the_ridge_is_the_best_and_not_every_one_is_tried(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    whole, _, start = problem(3, noise=noise, rows=60)
    _, fit, judge = parts(whole)
    errors = {damping: judge.error(start + fit.moments(start).step(damping)) for damping in RIDGES}
    tried: list[float] = []
    step = Moments.step

    def counted(self: Moments, damping: float) -> Array:
        tried.append(damping)
        return step(self, damping)

    monkeypatch.setattr(Moments, "step", counted)
    found = refit(whole, fit, judge, start)
    assert found.after == pytest.approx(min(*errors.values(), judge.error(start)) / judge.y.var(), rel=1e-4)
    assert len(tried) <= 5  # one of them is the last, on all rows
