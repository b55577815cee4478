"""A bit for each element."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from codec import Array, check, decoded, planted, same, sparse
from onnxprune.sparse.encoding.bitmask import Bitmask
from onnxprune.sparse.encoding.flat import Flat


@given(sparse(least=1))
def test_decoding_is_the_inverse(array: Array) -> None:
    assert same(decoded(Bitmask(), Flat.of(array)), array.reshape(-1))


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("size", [1, 7, 8, 64, 1001])
def test_every_decoder_agrees(size: int, opset: int) -> None:
    check(Bitmask(), planted((size,), 0.4), opset=opset)


def test_it_takes_a_bit_for_each_element_and_what_is_stored() -> None:
    array = np.zeros(800, np.float16)
    array[:80] = 1
    assert Bitmask().nbytes(Flat.of(array)) == 100 + 2 * (80 + 1)
