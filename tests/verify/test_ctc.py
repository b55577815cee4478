"""What recognisers read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.verify.ctc import edit_distance, has_blanks, letters

WORDS = st.lists(st.integers(0, 3), max_size=12)


@pytest.mark.parametrize(
    ("steps", "read"),
    [([], []), ([0, 0], []), ([1, 1, 0, 1], [1, 1]), ([0, 2, 2, 3, 0], [2, 3]), ([3, 3, 3], [3]), ([1, 0, 0, 2], [1, 2])],
)
def test_runs_are_one_letter_and_blanks_are_none(steps: list[int], read: list[int]) -> None:
    assert letters(np.array(steps, int), 0).tolist() == read


@given(WORDS, WORDS)
def test_the_distance_is_that_of_its_definition(one: list[int], other: list[int]) -> None:
    def distance(a: list[int], b: list[int]) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a):
            last, row = row, [i + 1]
            for j, y in enumerate(b):
                row.append(min(last[j] + (x != y), last[j + 1] + 1, row[j] + 1))
        return row[-1]

    assert edit_distance(np.array(one, int), np.array(other, int)) == distance(one, other)


@pytest.mark.parametrize(
    ("classes", "blank"),
    [
        ([[0, 0, 1, 2]], True),
        ([[4, 4, 3, 1]], True),
        ([[2, 2, 0, 1]], False),  # the usual class is neither the first nor the last
        ([[0, 0, *range(1, 10)]], False),  # and where hardly any is usual, it is no blank
        ([[]], False),
    ],
)
def test_blanks_are_the_first_or_the_last_class_and_the_usual_one(classes: list[list[int]], blank: bool) -> None:
    assert has_blanks(np.array(classes, int), max(5, 1 + max(classes[0], default=0))) is blank
