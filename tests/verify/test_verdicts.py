"""What can be said of an output: the weights that it moves with, the values in front of it, the best of several ways."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.verify.verdicts import OutputVerdict, Verdict, ancestors, best, front, reached, silence

MODEL = Model.of(
    parse("""(float[N,8] x) => (float[N,4] y, float[N,8] z) <float[8,8] w, float[8,4] v, float[8] b> {
      z = Relu(x)
      a = MatMul(x, w)
      h = Add(a, b)
      r = Relu(h)
      l = MatMul(r, v)
      s = Sigmoid(l)
      y = Mul(s, s)
    }""")
)


def test_what_depends_on_weights() -> None:
    assert reached(MODEL, {"v"}) == {"v", "l", "s", "y"}
    assert "z" not in reached(MODEL, {"w", "v", "b"})


def test_ancestors_are_counted_in_steps() -> None:
    assert ancestors(MODEL, {"y"}, 1) == ["s", "y"]
    assert ancestors(MODEL, {"y"}, 3) == ["r", "l", "s", "y"]


@pytest.mark.parametrize(
    ("heard", "found"),
    [({"s": False, "l": True}, {"l"}), ({"s": True}, {"s"}), ({"s": False, "l": False, "r": True}, None), ({}, None)],
    ids=["one before", "at once", "a weight lies between", "unknown"],
)
def test_the_values_in_front_of_an_output(heard: dict[str, bool], found: set[str] | None) -> None:
    assert front(MODEL, "y", {"w", "v"}, heard.get) == found


@pytest.mark.parametrize(
    ("arrays", "moves", "why"),
    [
        ([np.zeros(0)], False, "is empty"),
        ([np.zeros(0)], True, ""),
        ([np.full(2, np.nan)], True, "is nowhere finite"),
        ([np.array([np.nan, 1.0])], True, ""),
        ([np.ones(2), np.ones(3)], False, "is constant"),
        ([np.ones(2), np.arange(3.0)], False, "does not move when weights do"),
        ([np.ones(2)], True, ""),
        ([np.arange(3)], False, "does not move when weights do"),
        ([[np.ones(2)]], False, "does not move when weights do"),
    ],
)
def test_why_an_output_says_nothing(arrays: list[object], moves: bool, why: str) -> None:
    assert silence(arrays, lambda: moves) == why


def test_another_way_tests_what_the_first_does_not() -> None:
    first = (OutputVerdict("y", Verdict.NOT_TESTED, "is constant"), OutputVerdict("z", Verdict.TESTED))
    other = (OutputVerdict("y", Verdict.TESTED), OutputVerdict("z", Verdict.PROVEN))
    assert best([first]) == first
    assert best([first, other, ()]) == (other[0], first[1])
