"""Weights of a changed model in the file that it was made of."""

from __future__ import annotations

import numpy as np

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import FillSource
from onnxprune.verify.law import compare

TEXT = """(float[N,4] x) => (float[N,4] y, float[N,4] z) <float[4,8] w1, float[8,4] w2> {
  i = Identity(w1)
  a = MatMul(x, i)
  b = Relu(a)
  y = MatMul(b, w2)
  z = Neg(x)
}"""


def test_changed_weights_are_read_where_the_file_has_them() -> None:
    source, before = Model.of(parse(TEXT)), analyze(parse(TEXT)).model
    after = before.copy()
    name = next(node.input[1] for node in after.graph.node if node.output[0] == "a")
    after.weights[name] = Weight(name, None, np.where(np.arange(8) % 2, before.weights[name].array(), 0).astype(np.float32))
    filled = FillSource().run(source, before, after)
    assert not filled.missing
    assert [node.op_type for node in filled.model.graph.node] == ["MatMul", "Relu", "MatMul", "Neg"]  # no copy is made of w1
    assert compare(after, filled.model).ok
    assert not compare(before, filled.model).ok


def test_without_changes_it_is_the_file() -> None:
    source, before = Model.of(parse(TEXT)), analyze(parse(TEXT)).model
    assert FillSource().run(source, before, before.copy()).model.to_proto() == source.to_proto()
