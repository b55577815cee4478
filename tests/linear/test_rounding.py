"""Weights on a grid, and what makes up for the rounding."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Array
from onnxprune.linear.rounding import nearest_on_grid, rounded

ANY = np.random.default_rng(0)


def features(rows: int = 400, count: int = 12, groups: int = 2, *, bias: bool = True) -> Array:
    """Rows of features that depend on each other, with a last one that is 1."""
    mixed = ANY.standard_normal((groups, rows, count)) @ ANY.standard_normal((count, count)) + 1
    return np.concatenate([mixed, np.ones((groups, rows, 1))], 2) if bias else mixed


def moments(x: Array) -> Array:
    found: Array = x.transpose(0, 2, 1) @ x
    return found


def error(x: Array, w: Array, q: Array) -> float:
    return float(np.square(x @ (q - w)).mean())


@pytest.mark.parametrize("count", [12, 150])  # 150 is more than a block
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_left_makes_up_for_what_was_rounded(count: int, bias: bool) -> None:
    x = features(1000, count, bias=bias)
    w = ANY.standard_normal((2, count + bias, 5))
    steps = np.broadcast_to(np.array([0.1, 0.2, 0.3, 0.2, 0.5]), (2, count, 5))
    nearest = w.copy()
    nearest[:, :count] = nearest_on_grid(w[:, :count], steps, 127)
    found = rounded(moments(x), w, steps, 127, np.ones(steps.shape, bool))
    ratio = found[:, :count] / steps
    np.testing.assert_allclose(ratio, np.rint(ratio), atol=1e-9)
    assert error(x, w, found) < 0.6 * error(x, w, nearest)


def test_two_features_that_are_the_same_share_what_they_miss() -> None:
    x = np.repeat(ANY.standard_normal((1, 50, 1)), 2, 2)
    w = np.full((1, 2, 1), 0.25)  # in steps of 1 each alone is 0, and together they are nearest to 0 or 1 of 0.5
    found = rounded(moments(x), w * 1.2, np.ones((1, 2, 1)), 127, np.ones((1, 2, 1), bool))
    assert sorted(found.ravel().tolist()) == [0, 1]


def test_the_bias_takes_up_the_mean() -> None:
    x = features()
    w = ANY.standard_normal((2, 13, 4))
    steps = np.full((2, 12, 4), 0.7)
    found = rounded(moments(x), w, steps, 127, np.ones(steps.shape, bool))
    np.testing.assert_allclose((x @ (found - w)).mean(1), 0, atol=1e-6)


def test_zeros_and_bounds_hold() -> None:
    x = features()
    w = ANY.standard_normal((2, 13, 4))
    may = ANY.random((2, 12, 4)) > 0.5
    w[:, :12] *= may
    found = rounded(moments(x), w, np.full((2, 12, 4), 0.2), 3, may)
    assert not found[:, :12][~may].any()
    assert np.abs(found[:, :12]).max() <= 0.6 + 1e-12
    assert np.count_nonzero(found[:, :12]) > 0


def test_features_that_are_all_zero_have_the_nearest() -> None:
    x = np.zeros((1, 20, 3))
    w = np.array([[[0.26], [0.74], [-0.2]]])
    found = rounded(moments(x), w, np.full((1, 3, 1), 0.5), 127, np.ones((1, 3, 1), bool))
    np.testing.assert_allclose(found, nearest_on_grid(w, np.full((1, 3, 1), 0.5), 127))
