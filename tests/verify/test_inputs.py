"""Inputs of the proof say something, at sizes that the model takes."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.verify.inputs import DRAWS, redrawn, reference, told

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


def test_ids_are_redrawn_from_the_whole_table() -> None:
    model = Model.of(parse("(int64[N,T] x) => (float[N,T,4] y) <float[50,4] table> { y = Gather(table, x) }"))
    (feed, *_) = reference(model, ["y"], 0).feeds
    ids = redrawn(model, feed, 0, 1)["x"]
    assert ids.shape == feed["x"].shape
    assert max(redrawn(model, feed, seed, 1)["x"].max() for seed in range(9)) > 10


def test_ids_in_floating_point_are_redrawn_from_the_whole_table_too() -> None:
    text = "(float[N,T] x) => (float[N,T,4] y) <float[50,4] table> { i = Cast<to = 7>(x) y = Gather(table, i) }"
    model = Model.of(parse(text))
    ids = redrawn(model, {"x": np.zeros((3, 70), np.float32)}, 0, 1)["x"]
    assert ids.dtype == np.float32
    assert ids.max() > 40


def test_numbers_are_redrawn_positive_at_last() -> None:
    model = Model.of(parse("(float[N,4] a, float x) => (float[N,4] y) { y = Add(a, x) }"))
    (feed, *_) = reference(model, ["y"], 0).feeds
    drawn = redrawn(model, feed, 0, DRAWS - 1)
    assert (drawn["a"] >= 0).all()
    assert drawn["x"] >= 1


def test_a_model_that_does_not_run() -> None:
    text = "(float[N,4] x) => (float[N,5] y) { s = Constant<value = int64[2] {7, 5}>()\n y = Reshape(x, s) }"
    with pytest.raises(ModelError, match=r"^the model does not run on x\[1, 4\], nor on x\[4, 4\].*: .*--shape x=SIZEx4,"):
        reference(Model.of(parse(text)), ["y"], 0)
    with pytest.raises(ModelError, match=r"^the model does not run on x\[3, 4\]: .*--shape x=SIZEx4,"):
        reference(Model.of(parse(text), ("N=3",)), ["y"], 0)
    with pytest.raises(ModelError, match=r"^the model does not run on x\[2, 4\]: .*export it again$"):
        reference(Model.of(parse(text.replace("[N,4]", "[2,4]"))), ["y"], 0)


def test_given_sizes_are_those_of_every_run() -> None:
    model = Model.of(parse(OPEN), ("T=40",))
    assert [feed["x"].shape for feed in reference(model, ["y"], 0, large=True).feeds] == [(1, 40, 4), (2, 40, 4), (5, 40, 4)]


def test_an_expensive_model_is_tested_at_small_sizes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.verify.expense.EXPENSIVE", 1 << 20)
    text = "(float[N,3,H,W] x) => (float[N,4,H,W] y) <float[4,3,3,3] w> { y = Conv<pads = [1,1,1,1]>(x, w) }"
    found = reference(Model.of(parse(text), ("H=300", "W=300")), ["y"], 0, large=True)
    assert [feed["x"].shape for feed in found.feeds] == [(1, 3, 300, 300)]
    assert found.notes
    seen = Model.of(parse(text))
    seen.sizes = seen.sizes.with_samples({"x": (None, 3, 300, 300)}, seen.inputs, "data.npz")
    found = reference(seen, ["y"], 0, large=True)
    assert [feed["x"].shape for feed in found.feeds] == [(1, 3, 300, 300), (1, 3, 16, 16), (2, 3, 23, 23)]
    assert not found.notes


def test_sizes_as_messages_spell_them() -> None:
    assert told({"x": np.zeros((1, 2)), "n": np.zeros(())}) == "x[1, 2], n[]"
