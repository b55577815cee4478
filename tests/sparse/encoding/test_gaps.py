"""Distances in a few bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Array, chain_of, check, decoded, planted, same, sparse
from onnxprune.sparse.encoding.accounting import entropy_bytes
from onnxprune.sparse.encoding.flat import Flat
from onnxprune.sparse.encoding.gaps import Gaps

WIDTHS = range(2, 9)


@given(sparse(least=1), st.sampled_from(WIDTHS))
def test_decoding_is_the_inverse(array: Array, width: int) -> None:
    assert same(decoded(Gaps(width), Flat.of(array)), array.reshape(-1))


@pytest.mark.parametrize("opset", [11, 21])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_decoder_agrees(width: int, opset: int) -> None:
    check(Gaps(width), planted((7, 331), 0.07), opset=opset)


@pytest.mark.parametrize("width", WIDTHS)
def test_distances_around_the_escape(width: int) -> None:
    escape = (1 << width) - 1
    for gap in (1, escape - 1, escape, escape + 1, 2 * escape, 2 * escape + 1):
        array = np.zeros(gap + 2, np.float32)
        array[[0, gap]] = 1, 2
        check(Gaps(width), array)
        check(Gaps(width), array[::-1])


@given(sparse(least=1), st.sampled_from(WIDTHS))
def test_no_two_codes_are_at_one_position(array: Array, width: int) -> None:
    """Scatters to one position twice are undefined in the standard."""
    model = chain_of(Gaps(width), Flat.of(array))
    model.graph.output[0].name = next(node.input[1] for node in model.graph.node if node.op_type == "ScatterElements")
    from onnxprune.sparse.encoding.recognize import Decoders

    positions = Decoders(model).weights[model.graph.output[0].name].array()
    assert (np.diff(positions) > 0).all()
    assert positions[0] == 0
    assert positions[-1] < array.size


@pytest.mark.parametrize("density", [0.35, 0.2, 0.1, 0.05, 0.02])
def test_places_take_little_more_than_their_entropy(density: float) -> None:
    flat = Flat.of(planted((1 << 18,), density))
    places = min(Gaps(width).nbytes(flat) for width in WIDTHS) - flat.stored * 4
    assert places < 1.12 * entropy_bytes(flat.size, flat.stored, 0)
