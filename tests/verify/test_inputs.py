"""Inputs of the proof say something, at sizes that the model takes."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.verify.inputs import reference, told

OPEN = "(float[N,T,4] x) => (float[N,T,4] y) { y = Relu(x) }"


def shapes(text: str, *, large: bool) -> list[tuple[int, ...]]:
    return [feed["x"].shape for feed in reference(Model.of(parse(text)), ["y"], 0, large=large).feeds]


def test_a_large_size_is_among_three() -> None:
    assert shapes(OPEN, large=False) == [(1, 24, 4), (2, 47, 4)]
    assert shapes(OPEN, large=True) == [(1, 24, 4), (2, 47, 4), (1, 1008, 4)]
    assert shapes("(float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }", large=True)[-1] == (1, 3, 160, 160)


def test_where_only_a_batch_is_open_it_grows() -> None:
    assert shapes("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }", large=True) == [(1, 4), (2, 4), (5, 4)]
    assert shapes("(float[N,3,224,224] x) => (float[N,3,224,224] y) { y = Relu(x) }", large=True)[-1] == (2, 3, 224, 224)
    assert shapes("(float[2,4] x) => (float[2,4] y) { y = Relu(x) }", large=True) == [(2, 4)]
    assert shapes("(float[T] x) => (float[T] y) { y = Relu(x) }", large=True)[-1] == (1024,)


def test_a_large_size_that_the_model_does_not_take() -> None:
    """A table of 500 positions: the next smaller size is taken."""
    text = """(float[N,T,4] x) => (float[N,T,4] y) <float[500,4] table> {
      s = Shape<start = 1, end = 2>(x)
      zero = Constant<value = int64 {0}>()
      one = Constant<value = int64 {1}>()
      t = Squeeze(s)
      at = Range(zero, t, one)
      p = Gather(table, at)
      y = Add(x, p)
    }"""
    assert shapes(text, large=True)[-1] == (1, 432, 4)


def test_ids_are_drawn_from_the_whole_table_where_others_say_nothing() -> None:
    text = """(int64[N,T] x) => (float[N,T,4] y) <float[50,4] table> {
      one = Constant<value = int64 {1}>()
      e = Gather(table, x)
      m = Greater(x, one)
      f = Cast<to = 1>(m)
      axis = Constant<value = int64[1] {2}>()
      k = Unsqueeze(f, axis)
      y = Mul(e, k)
    }"""
    given = reference(Model.of(parse(text)), ["y"], 0)
    assert max(feed["x"].max() for feed in given.feeds) > 10
    assert given.notes == ()


def test_numbers_are_positive_where_noise_gives_nothing_finite() -> None:
    text = """(float[N,4] a, float x) => (float[N,4] y) {
      ten = Constant<value = float {10.0}>()
      d = Sub(x, ten)
      k = Log(d)
      y = Mul(a, k)
    }"""
    given = reference(Model.of(parse(text)), ["y"], 0)
    assert all(np.isfinite(result[0]).all() for result in given.results if not isinstance(result, Exception))
    assert given.notes == ()


@pytest.mark.parametrize(("op", "why"), [("y = Mul(x, zero)", "is constant"), ("y = Div(zero, zero)", "is nowhere finite")])
def test_what_no_inputs_move_is_named(op: str, why: str) -> None:
    text = "(float[N,4] x) => (float[N,4] z, float[N,4] y) { zero = Sub(x, x)\n z = Relu(x)\n " + op + " }"
    assert reference(Model.of(parse(text)), ["z", "y"], 0).notes == (f"not tested: output 'y' {why} on all inputs tried",)


def test_a_model_that_does_not_run() -> None:
    text = "(float[N,4] x) => (float[N,5] y) { s = Constant<value = int64[2] {7, 5}>()\n y = Reshape(x, s) }"
    with pytest.raises(ModelError, match=r"^the model does not run on x\[1, 4\]: "):
        reference(Model.of(parse(text)), ["y"], 0)


def test_sizes_as_messages_spell_them() -> None:
    assert told({"x": np.zeros((1, 2)), "n": np.zeros(())}) == "x[1, 2], n[]"
