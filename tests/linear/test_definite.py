"""Factors of positive definite matrices, against the plain decompositions."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Array
from onnxprune.linear import definite
from onnxprune.linear.definite import Factors

SIZES = (1, 3, 4, 5, 11, 12)
"""Of matrices in blocks of 4: less than a block, whole blocks, and more."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definite, "_SIDE", 4)


def matrices(size: int, *, definite: bool = True) -> Array:
    x = np.random.default_rng(size).standard_normal((2, 2 * size, size))
    found: Array = x.transpose(0, 2, 1) @ x + 0.1 * np.eye(size)
    if not definite:
        found[1] -= (np.linalg.eigvalsh(found[1])[0] + 0.05) * np.eye(size)
    return found


@pytest.mark.parametrize("size", SIZES)
def test_factors_solutions_and_inverses(size: int) -> None:
    m, b = matrices(size), np.random.default_rng(0).standard_normal((2, size, 3))
    factors = Factors(m.copy())
    assert factors.definite
    np.testing.assert_allclose(np.tril(factors.lower), np.linalg.cholesky(m), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(factors.solve(b), np.linalg.solve(m, b), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(factors.inverse(), np.linalg.inv(m), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rows", range(1, 12))
def test_the_first_rows_and_columns_are_a_factor_of_their_own(rows: int) -> None:
    m, b = matrices(11), np.random.default_rng(0).standard_normal((2, rows, 3))
    corner = np.linalg.cholesky(m)[:, :rows, :rows]
    np.testing.assert_allclose(Factors(m).back(b), np.linalg.solve(corner.transpose(0, 2, 1), b), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_a_matrix_that_is_not_definite_is_solved_all_the_same(size: int) -> None:
    m, b = matrices(size, definite=False), np.random.default_rng(0).standard_normal((2, size, 3))
    factors = Factors(m.copy())
    assert not factors.definite
    np.testing.assert_array_equal(factors.lower, m)
    np.testing.assert_allclose(factors.solve(b), np.linalg.solve(m, b), rtol=1e-8)
    np.testing.assert_allclose(factors.inverse(), np.linalg.inv(m), rtol=1e-8)


def test_what_it_solves_stays_as_it_is() -> None:
    b = np.ones((2, 11, 3))
    Factors(matrices(11)).solve(b)
    assert (b == 1).all()
