"""Ridge regression of readers, against its closed form; in both forms; and behind a rectifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Array
from onnxprune.linear import regression
from onnxprune.linear.regression import Regression, with_ones

INF = np.inf


def problem(
    seed: int, *, affine: bool, groups: int = 2, offset: bool = False, low: float = -INF, high: float = INF, rows: int = 40
) -> tuple[Regression, Array]:
    """A regression of 3 outputs on 5 features, and the weights that are there."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, rows, 5), np.float32) + 1
    x = with_ones(x) if affine else x
    w = rng.standard_normal((groups, x.shape[2], 3))
    y = rng.standard_normal((groups, rows, 3), np.float32) * 2
    added = rng.standard_normal(y.shape, np.float32) if offset else None
    return Regression(x, y, added, low, high, affine), w


def closed_form(task: Regression, near: Array, damping: float) -> Array:
    """Group by group, in double precision."""
    found = []
    for at, w in enumerate(near):
        x = task.x[at].astype(np.float64)
        y = task.y[at].astype(np.float64) - (0 if task.offset is None else task.offset[at])
        gram = x.T @ x
        counted = np.diagonal(gram)[: -1 if task.affine else None]
        ridge = np.full(len(gram), damping * counted.mean())
        if task.affine:
            ridge[-1] = 0
        found.append(np.linalg.solve(gram + np.diag(ridge), x.T @ y + ridge[:, None] * w))
    return np.stack(found)


@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_it_is_the_closed_form_from_any_start(seed: int, affine: bool, offset: bool, damping: float) -> None:
    task, near = problem(seed, affine=affine, offset=offset)
    assert not task.dual
    solver = task.solver(damping)
    expected = closed_form(task, near, damping)
    for start in (near, near + 1):
        np.testing.assert_allclose(solver.solve(start, near), expected, rtol=1e-3, atol=1e-3)


@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.integers(2, 8), st.sampled_from([1e-3, 1e-1]))
def test_both_forms_agree(seed: int, affine: bool, offset: bool, rows: int, damping: float) -> None:
    """Behind a rectifier, too, where a step begins elsewhere than the ridge pulls to."""
    found = []
    for most in (2, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(regression, "MOST_FEATURES", most)
            task, near = problem(seed, affine=affine, offset=offset, low=0, high=1.5, rows=rows)
            assert task.dual == (most == 2)
            assert task.gram.shape == (2, *[rows if task.dual else 5 + affine] * 2)
            solution = near
            for _ in range(4):
                solution = task.solver(damping).solve(solution, near, rectified=True)
            found.append(solution)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=2e-3)


def test_fewer_rows_than_features_are_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "MOST_FEATURES", 2)
    for affine in (True, False):
        task, near = problem(2, affine=affine, rows=3)
        assert task.error(task.solver(1e-6).solve(near, near)) < 1e-6 * task.error(near)


def bound(task: Regression, w: Array) -> float:
    """The sum of squares where what is cut off in target and prediction counts nothing."""
    predicted = task.x @ w + (0 if task.offset is None else task.offset)
    gap = np.where(task.y <= task.low, np.maximum(predicted, task.low) - task.low, predicted - task.y)
    gap = np.where(task.y >= task.high, np.minimum(predicted, task.high) - task.high, gap)
    return float(np.square(gap).mean())


@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.sampled_from([(0.0, INF), (0.0, 1.0), (-INF, 1.0), (-1.0, 6.0)]))
def test_each_step_lowers_the_bound_of_the_error(seed: int, affine: bool, offset: bool, limits: tuple[float, float]) -> None:
    task, w = problem(seed, affine=affine, offset=offset, low=limits[0], high=limits[1])
    solver = task.solver(0.0)
    before = bound(task, w)
    for _ in range(5):
        w = solver.solve(w, w, rectified=True)
        after = bound(task, w)
        assert task.error(w) <= after * (1 + 1e-5)
        assert after <= before * (1 + 1e-5)
        before = after


def test_steps_find_what_only_a_rectified_fit_can() -> None:
    """Targets that were cut off say nothing about how far below the bound they were."""
    rng = np.random.default_rng(0)
    x = with_ones(rng.standard_normal((1, 500, 4), np.float32))
    true = rng.standard_normal((1, 5, 2))
    y = np.maximum(x @ true, 0).astype(np.float32)
    task = Regression(x, y, None, 0.0, INF, affine=True)
    solver = task.solver(1e-6)
    linear = w = solver.solve(np.zeros_like(true), np.zeros_like(true))
    for _ in range(200):
        w = solver.solve(w, w, rectified=True)
    assert task.error(w) < 1e-2 * task.error(linear)


@pytest.mark.parametrize(("low", "high", "rectified"), [(-INF, INF, False), (0, INF, True), (-INF, 6, True), (0, 6, True)])
def test_the_error_is_that_behind_the_rectifier(low: float, high: float, rectified: bool) -> None:
    task, w = problem(3, affine=True, offset=True, low=low, high=high)
    assert task.rectified == rectified
    assert task.offset is not None
    total, count = 0.0, 0
    for x, y, added, weights in zip(task.x, task.y, task.offset, w, strict=True):
        for row, target, more in zip(x, y, added, strict=True):
            for got, wanted in zip(row @ weights + more, target, strict=True):
                total += (min(max(got, low), high) - min(max(wanted, low), high)) ** 2
                count += 1
    assert task.error(w) == pytest.approx(total / count, rel=1e-4)


def test_a_part_has_the_rows_asked_for() -> None:
    task, w = problem(4, affine=True, offset=True, low=0)
    errors = [task.part(rows).error(w) for rows in (slice(0, 10), np.arange(10, 40))]
    assert task.error(w) == pytest.approx((errors[0] + 3 * errors[1]) / 4, rel=1e-5)
    part: Any = task.part(np.array([2]))
    assert (part.low, part.high, part.affine) == (0, INF, True)
    np.testing.assert_array_equal(part.offset[:, 0], np.asarray(task.offset)[:, 2])


def test_ones_are_the_last_feature() -> None:
    rows = with_ones(np.zeros((2, 3, 4), np.float32))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.concatenate([np.zeros((2, 3, 4)), np.ones((2, 3, 1))], 2))
