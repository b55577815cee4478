"""Distances in whole bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Array, check, decoded, planted, same, sparse
from onnxprune.sparse.encoding.delta import Delta
from onnxprune.sparse.encoding.flat import Flat


@given(sparse(least=1), st.sampled_from([8, 16]))
def test_decoding_is_the_inverse(array: Array, width: int) -> None:
    assert same(decoded(Delta(width), Flat.of(array)), array.reshape(-1))


@pytest.mark.parametrize("opset", [11, 21])
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i1", "u1"])
def test_every_decoder_agrees(dtype: str, width: int, opset: int) -> None:
    check(Delta(width), planted((3, 1001), 0.02, dtype), opset=opset)


@pytest.mark.parametrize("gap", [1, 254, 255, 256, 257, 510, 511, 70000])
def test_long_distances_are_stepped(gap: int) -> None:
    array = np.zeros(gap + 3, np.float32)
    array[[0, gap]] = 1, 2
    check(Delta(8), array)
    check(Delta(16), array[::-1])


def test_it_takes_what_it_stores() -> None:
    array = np.zeros(1000, np.float32)
    array[[0, 255, 511]] = 1  # 256 is too far for a byte: one more element on the way
    assert Delta(8).nbytes(Flat.of(array)) == 4 * 5
    assert Delta(16).nbytes(Flat.of(array)) == 3 * 6
