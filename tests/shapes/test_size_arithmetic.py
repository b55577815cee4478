"""Small values that follow from shapes."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.shapes.size_arithmetic import SMALL, size_arithmetic

TEXT = """(float[N,6] x, int64[2] fed) => (int64[1] y, int64[2] z, float[2] r) <int64[1] one = {1}, int64[1] two = {2}> {
  s = Shape(x)
  c = Gather(s, one)
  y = Mul(c, two)
  z = Add(fed, two)
  f = Cast<to = 1>(s)
  r = RandomNormalLike(f)
}"""


def compute(**more: object) -> dict[str, list[int]]:
    model = Model.of(parse(TEXT))
    known = {name: weight.array() for name, weight in model.weights.items()}
    shapes = {"x": (5, 6), **{name: value.shape for name, value in known.items()}}
    found = size_arithmetic(model, model.graph.node, shapes, known, more.get("doubted", ()))  # type: ignore[arg-type]
    return {name: value.tolist() for name, value in found.items()}


def test_what_follows_from_shapes_and_constants_is_computed() -> None:
    assert compute() == {"s": [5, 6], "c": [6], "y": [12], "f": [5.0, 6.0]}


def test_sizes_that_are_in_doubt_are_no_constants() -> None:
    assert compute(doubted=("x",)) == {}


@pytest.mark.parametrize(("size", "known"), [(SMALL, True), (SMALL + 1, False)])
def test_only_small_values_are_computed(size: int, known: bool) -> None:
    model = Model.of(parse(f"(float[2] x) => (int64[{size}] y) <int64[1] n = {{{size}}}> {{ y = ConstantOfShape(n) }}"))
    values = {"n": np.array([size])}
    found = size_arithmetic(model, model.graph.node, {"y": (size,)}, values, ())
    assert ("y" in found) is known
