"""Tensors with one axis for each role: the worked example of the module."""

from __future__ import annotations

import numpy as np

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import Reader, linear_readers
from onnxprune.linear.roles import TAP


def grouped() -> Reader:
    found = analyze(
        parse("""(float[5,6,7,7] x) => (float[5,8,7,7] y) <float[8,3,1,1] w> {
  y = Conv<group = 2>(x, w)
}""")
    )
    (reader,) = linear_readers(found.model, found.coupling)
    return reader


def test_letters_and_their_roles() -> None:
    roles = grouped().roles
    assert roles.of == {"n": "row", "g": "group", "i": "feature", "o": "output"}
    assert roles.letters((5, 6, 7, 7), grouped().data_axes)[1] == {"n": 5, "g": 2, "i": 3, "axis2": 7, "axis3": 7}
    assert (roles.role(TAP), roles.role("axis2")) == ("feature", "row")
    assert (roles.size("group"), roles.size("output")) == (2, 4)


def test_a_tensor_by_roles_and_back() -> None:
    reader, kinds = grouped(), ("group", "row", "feature")
    x = np.arange(5 * 6 * 7 * 7.0).reshape(5, 6, 7, 7)
    arranged = reader.roles.arrange(x, reader.data_axes, kinds)
    assert arranged.shape == (2, 5 * 7 * 7, 3)
    rows = arranged[1].reshape(49, 5, 3)  # letters in the order of their names: places, then samples
    np.testing.assert_array_equal(rows[:, 0], x[0, 3:].reshape(3, 49).T)
    np.testing.assert_array_equal(reader.roles.restore(arranged, x.shape, reader.data_axes, kinds), x)
    assert reader.matrix(np.zeros((8, 3, 1, 1))).shape == (2, 3, 4)
