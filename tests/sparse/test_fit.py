"""Masked least squares against solving for each output by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Array
from onnxprune.linear.regression import Regression, with_ones
from onnxprune.sparse.fit import QuadraticProblem, masked


def regression(seed: int, *, affine: bool, rows: int = 60, features: int = 7, outputs: int = 3) -> tuple[Regression, Array]:
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((2, features, features))
    x = (rng.standard_normal((2, rows, features)) @ mix + rng.standard_normal((2, 1, features))).astype(np.float32)
    x = with_ones(x) if affine else x
    start = rng.standard_normal((2, x.shape[2], outputs))
    y = (x @ start + rng.standard_normal((2, rows, outputs))).astype(np.float32)
    return Regression(x, y, None, -np.inf, np.inf, affine), start


@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([1e-3, 1e-1]))
def test_fit_is_the_least_squares_solution_within_the_mask(seed: int, affine: bool, damping: float) -> None:
    rows, start = regression(seed, affine=affine)
    mask = np.random.default_rng(seed).random((2, 7, 3)) < 0.5
    problem = QuadraticProblem.of(rows, start, damping)
    found = masked(problem, mask, np.zeros(mask.shape))
    assert not found[~mask].any()
    x, y = rows.x.astype(np.float64), rows.y.astype(np.float64)
    if affine:
        mean: Array = x[:, :, :-1].mean(1, keepdims=True)
        target: Array = y.mean(1, keepdims=True)
        x, y, near = x[:, :, :-1] - mean, y - target, start[:, :-1]
    else:
        near = start
    for group in range(2):
        gram = np.asarray(x[group].T @ x[group] / x.shape[1])
        ridge = damping * np.trace(gram) / len(gram)
        for output in range(3):
            on = mask[group, :, output]
            left = gram[np.ix_(on, on)] + ridge * np.eye(on.sum())
            right = (x[group].T @ y[group] / x.shape[1] + ridge * near[group])[on, output]
            assert found[group, on, output] == pytest.approx(np.linalg.solve(left, right), rel=1e-3, abs=1e-3)
    if affine:
        whole = problem.whole(found)
        assert whole[:, -1] == pytest.approx(np.asarray(target - mean @ found)[:, 0], abs=1e-4)


def test_without_a_mask_it_is_the_dense_solution() -> None:
    rows, start = regression(0, affine=True)
    problem = QuadraticProblem.of(rows, start, 1e-2)
    assert masked(problem, np.ones((2, 7, 3), bool), start[:, :-1]) == pytest.approx(problem.dense(), rel=1e-3, abs=1e-4)


def test_offsets_are_taken_off_the_targets() -> None:
    rows, start = regression(1, affine=False)
    offset = np.asarray(np.random.default_rng(2).standard_normal(rows.y.shape), np.float32)
    moved = Regression(rows.x, np.asarray(rows.y + offset), offset, -np.inf, np.inf, False)
    assert QuadraticProblem.of(moved, start, 1e-2).cross == pytest.approx(QuadraticProblem.of(rows, start, 1e-2).cross, abs=1e-4)


def test_constant_features_do_no_harm() -> None:
    rows, start = regression(3, affine=True)
    rows.x[:, :, 2] = 0
    found = masked(QuadraticProblem.of(rows, start, 1e-3), np.ones((2, 7, 3), bool), start[:, :-1])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_features_that_only_rounding_moves_do_no_harm(other: float) -> None:
    """Moments in float32 are wrong by a few units in the last place; what is centred may then be below zero."""
    mean = np.full((1, 9), 0.0848)
    gram = mean[:, :, None] * mean[:, None, :] * (1 - 9 * np.finfo(np.float32).eps)
    gram[:, 0, 0] += other
    problem = QuadraticProblem.centred(gram, mean, 1e-9)
    assert (np.linalg.eigvalsh(problem.hessian) > 0).all()
    assert np.isfinite(problem.spectrum[1]).all()
    assert np.isfinite(problem.factor).all()


def test_outputs_that_arrive_early_stay_there() -> None:
    """One output has a single weight, and is solved in one step; the others take many, and there are fewer rows than features."""
    rows, start = regression(4, affine=True, rows=8, features=150)
    mask = np.ones((2, 150, 3), bool)
    mask[:, 1:, 0] = False
    problem = QuadraticProblem.of(rows, start, 1e-3)
    with np.errstate(all="raise", under="ignore"):
        found = masked(problem, mask, np.zeros(mask.shape))
    assert found[:, 0, 0] == pytest.approx(problem.cross[:, 0, 0] / problem.hessian[:, 0, 0])
    best = problem.dense()

    def loss(weights: Array) -> float:
        return float(np.vdot(weights, problem.hessian @ weights) - 2 * np.vdot(weights, problem.cross))

    best[:, :, 0] = found[:, :, 0]
    assert loss(found) == pytest.approx(loss(best), rel=1e-7)
