"""A row of elements, and the one that is not stored."""

from __future__ import annotations

import numpy as np

from onnxprune.sparse.encoding.flat import Flat, bits_of, most_frequent


def test_elements_are_told_apart_by_their_bits() -> None:
    assert bits_of(np.array([0.0, -0.0], np.float32)).tolist() == [0, 1 << 31]
    assert Flat.of(np.array([[0.0, -0.0], [1, np.nan]], np.float32)).positions.tolist() == [1, 2, 3]


def test_what_is_left_out_is_zero_or_the_zero_point() -> None:
    assert most_frequent(np.array([5, 5, 0], np.float32)) == 0
    assert most_frequent(np.array([128, 7, 128, 0], np.uint8)) == 128
    assert most_frequent(np.array([-3, -3, 0], np.int8)) == 253
    assert most_frequent(np.zeros(0, np.int8)) == 0
    flat = Flat.of(np.array([-3, -3, 0], np.int8))
    assert flat.positions.tolist() == [2]
    assert flat.filled(flat.bits[[2]], first=True).tolist() == [-3, 0]


def test_entries_begin_at_the_first_element() -> None:
    assert Flat.of(np.array([0, 0, 1, 0, 2], np.float32)).entries.tolist() == [0, 2, 4]
    assert Flat.of(np.array([1, 0, 2], np.float32)).entries.tolist() == [0, 2]
    assert Flat.of(np.zeros(3, np.float32)).entries.tolist() == [0]
    assert Flat.of(np.array([1, 0, 0, 2, 3], np.float32)).skipped.tolist() == [2, 0]
