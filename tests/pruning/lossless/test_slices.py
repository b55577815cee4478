"""Slices: what constants are along their axes, and what composite axes say about their digits."""

from __future__ import annotations

import numpy as np

from onnxprune.pruning.lossless.slices import Slices, by_digits, concatenated, content, of_constant


def slices(count: int) -> Slices:
    places = np.arange(count, dtype=np.float64)
    return Slices(np.arange(10, 10 + count, dtype=np.uint64), places - 1, places + 1)


def test_a_constant_is_its_content_along_each_axis() -> None:
    array = np.array([[1, 2, 1], [3, 3, 3]], np.float32)
    down, across = of_constant(array, 0), of_constant(array, 1)
    assert down.constant.tolist() == [False, True]
    assert across.digest[0] == across.digest[2] != across.digest[1]
    assert (down.low.tolist(), down.high.tolist()) == ([1, 3], [2, 3])
    assert content(array) != content(array.T)


def test_one_number_is_one_number_whatever_the_shape() -> None:
    small, large = of_constant(np.full((2, 1), 0.5, np.float32), 0), of_constant(np.full((2, 9), 0.5, np.float16), 0)
    assert (small.digest == large.digest).all()
    assert of_constant(np.zeros((3, 2), np.float32), 0).zero.all()


def test_nothing_is_known_of_what_is_not_a_number() -> None:
    found = of_constant(np.array([[np.nan, 1], [np.inf, np.inf]], np.float32), 0)
    assert not found.constant.any()


def test_digits_that_are_missing_repeat_and_digits_too_many_join() -> None:
    sizes = {"g": 2, "o": 3, "i": 2}
    joint = by_digits(slices(4), ("g", "i"), ("g", "o"), sizes)
    assert len(joint.digest) == 6
    assert len(np.unique(joint.digest[:3])) == 1
    assert joint.digest[0] != joint.digest[3]
    assert (joint.low[:3] == -1).all()  # the least of both places of the group
    assert (joint.high[:3] == 2).all()


def test_digits_change_their_order() -> None:
    sizes = {"a": 2, "b": 3}
    turned = by_digits(slices(6), ("a", "b"), ("b", "a"), sizes)
    assert turned.digest.tolist() == [10, 13, 11, 14, 12, 15]


def test_concatenation_and_parts_are_inverse() -> None:
    whole = slices(5)
    again = concatenated([whole.part(0, 2), whole.part(2, 5)])
    assert (again.digest == whole.digest).all()
    assert (again.high == whole.high).all()


def test_slices_whose_bounds_meet_are_numbers() -> None:
    found = Slices.of(np.array([1, 2, 3], np.uint64), np.array([0.5, 0.5, -np.inf]), np.array([0.5, 0.5, np.inf]))
    assert found.digest[0] == found.digest[1] != 1
    assert found.digest[2] == 3
    assert not Slices.of(np.array([1], np.uint64), np.array([np.inf]), np.array([np.inf])).constant.any()
