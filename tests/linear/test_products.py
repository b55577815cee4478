"""Gram matrices in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.linear import products
from onnxprune.linear.products import gram, gram_pieces, product, whole


@pytest.mark.parametrize("features", [1, 7, 8, 9, 30])
def test_pieces_make_the_whole(monkeypatch: pytest.MonkeyPatch, features: int) -> None:
    monkeypatch.setattr(products, "_SIDE", 8)
    x = np.random.default_rng(0).standard_normal((2, 50, features))
    found = []
    for count in ("1", "3"):
        monkeypatch.setenv("ONNXPRUNE_THREADS", count)
        found.append(gram(x))
    np.testing.assert_allclose(found[0], np.einsum("grf,grh->gfh", x, x), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found[0], found[0].transpose(0, 2, 1))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(whole(gram_pieces(x), features), found[0])


def test_pieces_are_little_more_than_half_of_a_large_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SIDE", 2)
    x = np.random.default_rng(0).standard_normal((1, 5, 40))
    assert sum(piece.size for piece in gram_pieces(x)) == 20 * 21 // 2 * 4


def test_only_the_result_says_whether_a_product_is_finite() -> None:
    """The flag that NumPy reads may come from lanes that are no part of the product."""
    x = np.random.default_rng(0).standard_normal((2, 6, 4), np.float32)
    w = np.random.default_rng(1).standard_normal((2, 4, 1), np.float32)
    np.testing.assert_array_equal(product(x, w), x @ w)
    x[0, 0, 0], w[0, 0, 0] = np.inf, 0
    with np.errstate(all="raise"):
        found = product(x, w)
    assert np.isnan(found[0, 0, 0])
    assert np.isfinite(found[0, 1:]).all()
    assert np.isfinite(found[1]).all()
