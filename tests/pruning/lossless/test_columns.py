"""The columns of a matrix: the worked example of the module; `test_search` tries them on graphs."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.axes.factors import Factor, direct_sum, product
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Weight
from onnxprune.pruning.lossless.columns import ColumnCounts, Columns, along, places
from onnxprune.pruning.lossless.value_numbering import ValueNumbering

NET = """(float[N,2] x) => (float[N,2] y) <float[2,3] w, float[3,2] v> {
  h = MatMul(x, w)
  y = MatMul(h, v)
}"""


def columns(rows: list[list[float]]) -> tuple[Columns, Factor]:
    """The columns of a second matrix with these rows, after a first one whose first and last outputs are equal."""
    found = analyze(parse(NET))
    w = np.array([[1, 2, 1], [3, 4, 3]], np.float32)
    for name, array in (("w", w), ("v", np.array(rows, np.float32).T)):
        found.model.weights[name] = Weight(name, None, array)
    values = ValueNumbering(found.model, found.coupling)
    (form,) = (form for form in values.affine.values() if form.matrix == "v")
    return Columns.of(found.model, values, [form]), found.coupling.groups[0].factor


@pytest.mark.parametrize(("second", "spare"), [(-2, [True, False, True]), (3, [False, False, False])])
def test_columns_of_one_class_count_by_the_sum_of_their_weights(second: float, spare: list[bool]) -> None:
    found, leaf = columns([[1, 5, -1], [2, 0, second]])
    assert len(set(found.classes[0, [0, 2]])) == 1 < len(set(found.classes[0]))
    assert found.spare(leaf, {}).tolist() == spare


def test_an_equal_column_takes_over() -> None:
    found, leaf = columns([[1, 5, -1], [2, 0, 3]])
    counts = ColumnCounts(found, {})
    assert counts.candidates(leaf).tolist() == [True, False, True]
    assert counts.spares(leaf, 2)
    counts.take(leaf, 2)
    assert not counts.spares(leaf, 0)
    edit = found.edit({leaf: np.array([False, False, True])})
    assert edit is not None
    assert edit.apply(np.array([[1, 5, -1], [2, 0, 3]], np.float32).T).T.tolist() == [[0, 5, 0], [5, 0, 0]]


def test_places_of_a_leaf() -> None:
    a, b = Factor(2), Factor(3)
    assert places(product([a, b]), b).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert places(direct_sum([a, b]), b).tolist() == [[2], [3], [4]]
    assert along(product([a, b]), {b: np.array([False, True, False])}).tolist() == [False, True, False, False, True, False]
