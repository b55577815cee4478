"""Rows of a reader: the worked example of `positions_read`; `test_layers` compares rows with what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import linear_readers
from onnxprune.linear.rows import input_rows, output_rows, pick_rows, positions_read, summable

NET = """(float[N,3,1,5] x) => (float[N,4,1,3] y) <float[2,3,1,1] w, float[4,2,1,3] v> {
  h = Conv(x, w)
  y = Conv(h, v)
}"""


def test_features_of_a_position_are_its_taps() -> None:
    found = analyze(parse(NET))
    reader = linear_readers(found.model, found.coupling)[1]
    (group,) = found.coupling.groups
    positions = positions_read(reader, found.coupling, group.factor)
    assert positions is not None
    assert positions.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_rows_of_a_convolution_are_windows() -> None:
    found = analyze(parse(NET))
    reader = linear_readers(found.model, found.coupling)[1]
    x = np.arange(20.0).reshape(2, 2, 1, 5)
    picked = pick_rows(reader, x.shape, (4, 2, 1, 3), 100, np.random.default_rng(0))
    rows = input_rows(reader, x, picked)
    assert rows.shape == (1, 2 * 3, 6)
    assert rows[0, 2].tolist() == [1, 2, 3, 6, 7, 8]
    y = np.arange(24.0).reshape(2, 4, 1, 3)
    assert output_rows(reader, y, picked)[0, 2].tolist() == y[0, :, 0, 1].tolist()


def test_rows_whose_squares_have_no_sum_are_told() -> None:
    rows = np.ones((2, 5, 3), np.float32)
    rows[0, 1, 2], rows[1, 2, 0], rows[0, 3, 1] = np.nan, np.inf, -1e30
    assert summable(rows).tolist() == [True, False, False, False, True]
    assert summable(np.ones((2, 5, 1), np.float32), rows[:, ::-1]).tolist() == [True, False, False, False, True]
