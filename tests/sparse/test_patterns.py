"""What may be kept together, and which of it is."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxprune.errors import OptionError
from onnxprune.sparse.patterns import BlockPattern, NofM, Pattern, Unstructured, parse_pattern

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 3), st.integers(1, 6))
FEW = st.integers(0, 3).map(float)  # many scores are equal


def scores(of: Any = FEW) -> Any:
    return SHAPES.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=of))


PATTERNS = st.one_of(
    st.just(Unstructured()),
    st.tuples(st.integers(1, 3), st.integers(4, 5)).map(lambda nm: NofM(*nm)),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()).map(lambda rc: BlockPattern(*rc)),
)


@given(scores(), st.integers(0, 400))
def test_unstructured_keeps_exactly_as_many_as_asked(values: Any, keep: int) -> None:
    kept = Unstructured().mask(values, keep)
    assert kept.sum() == min(keep, values.size)
    assert values[kept].min(initial=np.inf) >= values[~kept].max(initial=-np.inf)


@given(scores(), st.integers(0, 60))
def test_of_equal_scores_the_first_is_kept(values: Any, keep: int) -> None:
    order = sorted(range(values.size), key=lambda at: (-values.reshape(-1)[at], at))
    expected = np.zeros(values.size, bool)
    expected[order[:keep]] = True
    assert np.array_equal(Unstructured().mask(values, keep).reshape(-1), expected)


@given(scores(), st.integers(1, 4), st.integers(1, 4))
def test_n_of_m_keeps_the_best_of_each_cell(values: Any, n: int, more: int) -> None:
    pattern = NofM(n, n + more)
    kept = pattern.mask(values, 0)
    assert pattern.allows(kept)
    assert kept.sum() == pattern.most(values.shape)
    groups, channels, taps, outputs = values.shape
    for g, t, o in itertools.product(range(groups), range(taps), range(outputs)):
        for start in range(0, channels, pattern.m):
            cell = values[g, start : start + pattern.m, t, o]
            chosen = kept[g, start : start + pattern.m, t, o]
            best = sorted(range(len(cell)), key=lambda at, cell=cell: (-cell[at], at))[:n]  # type: ignore[misc]
            assert sorted(np.flatnonzero(chosen)) == sorted(best)


def test_n_of_m_refuses_one_too_many() -> None:
    kept = np.zeros((1, 4, 1, 1), bool)
    kept[0, :2] = True
    assert NofM(2, 4).allows(kept)
    kept[0, 3] = True
    assert not NofM(2, 4).allows(kept)


@given(scores(st.floats(0, 1)), PATTERNS, st.integers(0, 300))
def test_masks_are_repeatable_and_no_larger_than_asked(values: Any, pattern: Pattern, keep: int) -> None:
    kept = pattern.mask(values, keep)
    assert np.array_equal(kept, pattern.mask(values.copy(), keep))
    assert kept.shape == values.shape
    assert kept.sum() <= (pattern.most(values.shape) if pattern.fixed else keep)
    assert pattern.allows(kept)


@given(scores(st.floats(0, 1)), st.integers(0, 4), st.integers(0, 4), st.booleans(), st.integers(0, 300))
def test_blocks_are_kept_or_dropped_whole(values: Any, r: int, c: int, taps: bool, keep: int) -> None:
    kept = BlockPattern(r, c, taps=taps).mask(values, keep)
    _, channels, kernel, outputs = values.shape
    r, c, t = r or outputs, c or channels, kernel if taps else 1
    for a, b, d in itertools.product(range(0, channels, c), range(0, kernel, t), range(0, outputs, r)):
        block = kept[:, a : a + c, b : b + t, d : d + r]
        assert (block.reshape(len(kept), -1).min(1) == block.reshape(len(kept), -1).max(1)).all()


def test_blocks_fill_the_count_where_they_divide_it() -> None:
    values = np.random.default_rng(0).random((2, 8, 3, 12))
    for keep in range(0, values.size + 1, 8):
        assert BlockPattern(4, 2).mask(values, keep).sum() == keep


@pytest.mark.parametrize("text", ["unstructured", "2:4", "1:16", "4x1", "1x8", "channel", "filter"])
def test_patterns_read_as_they_are_written(text: str) -> None:
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize("text", ["", "4:2", "0:4", "2:2", "0x4", "2:4:8", "blocks", "2-4", "-1x4"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"pattern {text!r}: write unstructured (any weights), N:M (at most")):
        parse_pattern(text)
