"""How far outputs are from the original's, by hand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxprune.verify.divergence import WORST, comparable, cosines, divergence, finite_rows, log_softmax


def array(*values: Any, dtype: str = "float32") -> Any:
    return np.array(values, dtype)


def test_log_softmax_is_stable() -> None:
    found = log_softmax(array([1e4, 1e4 - np.log(3)]))
    np.testing.assert_allclose(np.exp(found), [[0.75, 0.25]], rtol=1e-3)


def test_classes_count_with_the_divergence_of_their_softmax() -> None:
    p, q = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]), np.array([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
    expected = float((p * np.log(p / q)).sum() / 2)
    logits = [(np.log(v) + 5).astype(np.float32) for v in (q, p)]
    assert divergence(logits[:1], logits[1:]) == pytest.approx(expected, rel=1e-4)
    assert divergence([q], [p]) == pytest.approx(expected, rel=1e-4), "probabilities are taken for what they are"


def test_a_logarithm_of_nothing() -> None:
    assert 0 < divergence([array([0.0, 1.0])], [array([1.0, 0.0])]) < 100


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 2, 3), ()])
def test_anything_else_counts_with_its_squared_error(shape: tuple[int, ...]) -> None:
    b = np.arange(6.0).reshape(shape) if shape else np.array(2.0)
    assert divergence([b], [b]) == 0
    if shape:
        assert divergence([b + 3], [b]) == pytest.approx(9 / np.arange(6.0).var())
        assert divergence([np.full(shape, 2.5)], [b]) == pytest.approx(1)


def test_the_mean_of_several_outputs() -> None:
    a, b = array(0, 1, 2, 3), array(0, 1, 2, 4)
    one = divergence([a], [b])
    assert divergence([a, b, b, array(1, dtype="int64")], [b, b, b, array(2, dtype="int64")]) == pytest.approx(one / 3)


def test_integers_count_where_there_is_nothing_else() -> None:
    a, b = array(0, 1, 2, 3, dtype="int64"), array(0, 1, 2, 4, dtype="int64")
    assert divergence([a, a == 1], [b, b == 1]) == 0.125
    assert divergence([a[:2]], [b]) == 1
    assert divergence([array("x", "y", dtype="object")], [array("x", "z", dtype="object")]) == 0.5
    assert divergence([[a]], [[b]]) == 0, "sequences are not compared"
    assert divergence([], []) == 0
    assert divergence([a[:0]], [b[:0]]) == 0


def test_another_shape_is_as_far_as_something_unrelated() -> None:
    assert divergence([np.zeros((3, 4))], [np.zeros((2, 4))]) == 1


def test_entries_that_are_infinite_in_the_original_do_not_count() -> None:
    a, b = array([1.0, 2.0, -np.inf]), array([2.0, 1.0, -np.inf])
    assert divergence([a], [b]) == pytest.approx(divergence([a[:, :2]], [b[:, :2]]))
    a, b = array(1.0, 2.0, np.inf, np.nan), array(1.0, 3.0, np.inf, np.nan)
    assert divergence([a], [b]) == pytest.approx(0.5 / 1)
    assert divergence([b[2:]], [b[2:]]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_what_is_no_longer_finite_is_worst(bad: float, shape: tuple[int, ...]) -> None:
    b = array(1, 2, 3, 4).reshape(shape)
    a = b.copy()
    a.flat[0] = bad
    assert divergence([a], [b]) == WORST


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats(dtype: Any) -> None:
    a, b = array(0, 1, 2, 3).astype(dtype), array(0, 1, 2, 4).astype(dtype)
    assert divergence([a], [b]) == pytest.approx(0.25 / np.var([0, 1, 2, 4]))


def test_comparable() -> None:
    a = array(1, 2)
    assert comparable(a, a)
    assert comparable(a, a.astype(ml_dtypes.bfloat16))
    for other in (a.astype(np.int64), a[:1], [1.0, 2.0], array("x", "y", dtype="object")):
        assert not comparable(a, other)
    assert not comparable([1.0], a)
    assert not comparable(a[:0], a[:0])


def test_what_is_not_finite_in_the_reference_does_not_count() -> None:
    nan, inf = np.nan, np.inf
    a = np.array([[nan, 2.0, -inf], [nan, 1.0, 1.0], [1.0, 1.0, 1.0]])
    b = np.array([[nan, 4.0, -inf], [5.0, 1.0, 1.0], [nan, nan, nan]])
    x, y = finite_rows(a, b)
    np.testing.assert_array_equal(x, [[0, 2, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(y, [[0, 4, 0], [5, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(cosines(x, y), [1, 0, 1])
