"""Strands of a group in a tensor: the worked example of the module."""

from __future__ import annotations

import numpy as np

from onnxprune.axes.factors import Factor, direct_sum, product
from onnxprune.linear.strands import StrandView, strands

BATCH, HEADS, WIDTH = Factor(2), Factor(2), Factor(3)
AXES = (BATCH, direct_sum([product([HEADS, WIDTH]), product([HEADS, WIDTH])]))


def test_places_of_a_leaf() -> None:
    found = [(axis, digit.tolist()) for axis, digit in strands(AXES, WIDTH)]
    there, nothing = [0, 1, 2, 0, 1, 2], [-1] * 6
    assert found == [(1, there + nothing), (1, nothing + there)]


def test_blocks_of_a_strand() -> None:
    array = np.arange(24.0).reshape(2, 12)
    for strand in (0, 1):
        view = StrandView(AXES, WIDTH, strand, (HEADS,))
        blocks = view.blocks(array)
        np.testing.assert_array_equal(blocks, array.T[6 * strand : 6 * strand + 6].reshape(2, 3, 2))
        doubled = view.put(array, 2 * blocks)
        np.testing.assert_array_equal(doubled[:, 6 * strand : 6 * strand + 6], 2 * array[:, 6 * strand : 6 * strand + 6])
        np.testing.assert_array_equal(doubled[:, 6 - 6 * strand : 12 - 6 * strand], array[:, 6 - 6 * strand : 12 - 6 * strand])
        assert view.in_order
