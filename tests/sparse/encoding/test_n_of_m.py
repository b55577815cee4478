"""N of every M."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Array, check, decoded, same
from onnxprune.sparse.encoding.flat import Flat
from onnxprune.sparse.encoding.n_of_m import NM, patterns

PATTERNS = [(1, 2), (1, 4), (2, 4), (3, 4), (2, 5), (4, 8), (2, 8), (8, 16), (1, 16), (3, 32)]


def pruned(groups: int, n: int, m: int, seed: int = 0, *, ragged: bool = False) -> Array:
    """Rows of which n of every m remain; where ragged, sometimes fewer."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((groups, m)).astype(np.float32)
    np.put_along_axis(rows, np.argsort(np.abs(rows), axis=1)[:, : m - n], 0, axis=1)
    rows[rng.random(rows.shape) < 0.3 * ragged] = 0
    return rows


@given(st.sampled_from(PATTERNS), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_decoding_is_the_inverse(pattern: tuple[int, int], groups: int, seed: int, ragged: bool) -> None:
    array = pruned(groups, *pattern, seed, ragged=ragged)
    assert same(decoded(NM(*pattern), Flat.of(array)), array.reshape(-1))


@pytest.mark.parametrize("opset", [11, 21])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_decoder_agrees(pattern: tuple[int, int], opset: int) -> None:
    check(NM(*pattern), pruned(101, *pattern), opset=opset)


def test_three_groups_of_two_in_four_are_a_byte() -> None:
    flat = Flat.of(pruned(3000, 2, 4))
    assert NM(2, 4).nbytes(flat) == 1000 + 6000 * 4 + 4 * 6 * 2


@pytest.mark.parametrize(("shape", "axis"), [((8, 16), 1), ((16, 8), 0), ((6, 8, 3, 3), 1)])
def test_patterns_are_found_along_what_a_layer_sums_over(shape: tuple[int, ...], axis: int) -> None:
    moved = pruned(int(np.prod(shape)) // 4, 2, 4).reshape(*np.delete(shape, axis), shape[axis])
    array = np.moveaxis(moved, -1, axis)
    found = {scheme: place for place, scheme in patterns(array, 0)}
    assert found[NM(2, 4)] == (None if axis == len(shape) - 1 else axis)


def test_a_pattern_of_the_whole_group_is_none() -> None:
    assert not list(patterns(np.ones((8, 16), np.float32), 0))
    assert not list(patterns(np.zeros((5, 6), np.float32), 0)), "neither is a multiple of 4"
    assert not list(patterns(np.zeros((), np.float32), 0))
