"""Digests: equal for what is equal, others for what is not, and for sums of products no order."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Array
from onnxprune.pruning.lossless.hashing import bits, joined, mixed, named, numbers, products, rows


def test_mixing_is_a_bijection() -> None:
    assert len(np.unique(mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_bits_tell_numbers_apart_but_not_zeros(dtype: type) -> None:
    values: Array = np.array([0, -0.0, 1, 2, -1, 3], dtype)
    found = bits(values)
    assert found[0] == found[1] == 0
    assert len(np.unique(found)) == 5


def test_a_number_is_the_same_in_every_type() -> None:
    assert (numbers(np.array([0.5, 2], np.float16)) == numbers(np.array([0.5, 2], np.float64))).all()


def test_rows_are_ordered_and_joins_are_tuples() -> None:
    table = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3], [0, 2, 3]], np.uint64)
    assert np.unique(rows(table), return_inverse=True)[1].tolist().count(np.unique(rows(table), return_inverse=True)[1][0]) == 2
    assert rows(table)[0] == rows(table)[2]
    one, other = table[:, 0], table[:, 1]
    assert (joined(one, other) != joined(other, one)).all()
    assert (joined(one, named("a")) == joined(one, named("a"))).all()
    assert (joined(one, named("a")) != joined(one, named("b"))).all()


def test_products_have_no_order_and_zeros_add_nothing() -> None:
    rng = np.random.default_rng(0)
    table, factors = rng.standard_normal((7, 5)).astype(np.float32), mixed(np.arange(1, 6, dtype=np.uint64))
    table[:, 2] = 0
    order = rng.permutation(5)
    assert (products(table, factors) == products(table[:, order], factors[order])).all()
    kept = [0, 1, 3, 4]
    assert (products(table, factors) == products(table[:, kept], factors[kept])).all()
    ignored = factors.copy()
    ignored[1] = 0
    assert (products(table, ignored) == products(np.delete(table, 1, 1), np.delete(factors, 1))).all()


def test_products_tell_rows_apart_that_differ_in_one_bit_or_by_a_swap() -> None:
    """Weights of few bits are the hard case: differences are powers of two."""
    values = np.array([-2, -1, -0.5, 0, 0.5, 1, 2], np.float32)
    table = np.stack(np.meshgrid(values, values, values, values, indexing="ij"), -1).reshape(-1, 4)
    assert len(np.unique(products(table, mixed(np.arange(1, 5, dtype=np.uint64))))) == len(table)


def test_long_tables_are_chunked_without_a_trace() -> None:
    table = np.random.default_rng(0).standard_normal((40, 20_000)).astype(np.float32)
    factors = mixed(np.arange(1, 20_001, dtype=np.uint64))
    assert (products(table, factors)[:3] == products(table[:3], factors)).all()
