from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.ir.discontinuities import branch_variants, dtypes, frontier
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.runtime import session
from onnxprune.verify.law import compare

TEXT = """
(float[16, 2] x) => (int64[16, 1] choice, float[16, 2] score)
<float[2, {h}] a, float[{h}, 2] b> {{
  hidden = MatMul(x, a)
  score = MatMul(hidden, b)
  choice = ArgMax<axis = 1>(score)
}}
"""


def model(width: int, second: float) -> Model:
    """Two scores that are equal but for a factor; hidden units beyond the first two are masked."""
    a, b = np.zeros((2, width), np.float32), np.zeros((width, 2), np.float32)
    a[:, :2] = [[1, 2], [3, 4]]
    b[:2] = [[1, second], [1, second]]
    result = Model.of(parse(TEXT.format(h=width)))
    result.weights |= {name: Weight(name, None, value) for name, value in (("a", a), ("b", b))}
    return result


def test_what_goes_into_a_choice_and_what_lies_behind() -> None:
    found = frontier(model(4, 1), ["a"])
    assert found.entering == ("score",)
    assert found.behind == {"choice"}


def test_choices_that_do_not_depend_on_what_changed() -> None:
    assert frontier(model(4, 1), []).entering == ()


def test_a_choice_that_rounding_tips_is_compared_where_it_is_made() -> None:
    outcome = compare(model(2, 1 + 1e-6), model(4, 1))
    assert outcome.ok, outcome.text
    assert outcome.behind == 1


def test_a_choice_by_other_scores_is_caught() -> None:
    outcome = compare(model(2, 1.5), model(4, 1))
    assert not outcome.ok
    assert "'score'" in outcome.text


def test_types_of_constants_and_values() -> None:
    """What no operator set describes has none."""
    text = """(float[N,4] x) => (float[N,4] y) <float16[4] w, int8[2] i> {
      a = mine.Op(x)
      h = Cast<to = 10>(a)
      m = Mul(h, w)
      y = Cast<to = 1>(m)
    }"""
    found = dtypes(Model.of(parse(text, domains=["mine"])))
    assert {name: str(kind) for name, kind in found.items() if name != "a"} == {
        "x": "float32", "y": "float32", "h": "float16", "m": "float16", "w": "float16", "i": "int8"
    }  # fmt: skip


BODY = """
(float[16, 2] x, bool c) => (float[16, 4] y, float[16, 4] z)
<float[2, 4] a, float[4, 4] b, float zero = {0}, int64 two = {2}, bool yes = {1}> {
  hidden = MatMul(x, a)
  y = If (c) <
    then_branch = one () => (float[16, 4] p) { m = Greater(READ, zero)  k = Cast<to = 1>(m)  p = Mul(k, hidden) },
    else_branch = other () => (float[16, 4] q) { q = Neg(hidden) }>
  z = Loop (two, yes, hidden) <body = step (int64 i, bool going, float[16, 4] h) => (bool on, float[16, 4] g) {
    on = Identity(going)
    r = MatMul(h, b)
    CHOICE
  }>
}
"""


def body(read: str = "hidden", choice: str = "g = Tanh(r)") -> Model:
    return Model.of(parse(BODY.replace("READ", read).replace("CHOICE", choice)))


def test_a_choice_in_a_body_by_what_is_made_outside() -> None:
    found = frontier(body(), ["a"])
    assert found.entering == ("hidden",)
    assert found.behind == {"m", "k", "p", "y"}


def test_a_choice_by_what_a_body_makes_cannot_be_looked_at() -> None:
    """So that what lies behind it must be equal."""
    found = frontier(body(choice="m2 = Round(r)  g = Add(m2, h)"), ["b"])
    assert found.entering == ()
    assert not found.behind


def test_what_a_loop_carries_on_lies_behind_a_choice() -> None:
    found = frontier(body(choice="s = Round(hidden)  t = Add(r, s)  g = Add(t, h)"), ["a"])
    assert found.entering == ("hidden",)
    assert {"s", "t", "g", "h", "r", "z"} <= found.behind


def test_a_condition_that_is_a_choice() -> None:
    text = BODY.replace("READ", "hidden").replace("CHOICE", "g = Tanh(r)").replace("If (c)", "If (d)")
    text = text.replace(
        "hidden = MatMul(x, a)", "hidden = MatMul(x, a)  v = ReduceMax<keepdims = 0>(hidden)  d = Greater(v, zero)"
    )
    found = frontier(Model.of(parse(text)), ["a"])
    assert set(found.entering) == {"v", "hidden"}
    assert "y" in found.behind
    assert "z" not in found.behind


DECIDED = """
(float[N, 2] x, bool c, int64 n) => (float[N, 4] y)
<float[2, 4] a, float[4, 4] b, float[4, 4] d> {
  h = MatMul(x, a)
  k = Loop (n, "", h) <body = step (int64 i, bool going, float[N, 4] g) => (bool on, float[N, 4] f) {
    on = Identity(going)  f = MatMul(g, b) }>
  y = If (c) <then_branch = one () => (float[N, 4] p) { p = MatMul(k, d) },
              else_branch = two () => (float[N, 4] q) { q = Neg(k) }>
}
"""


def test_every_branch_is_taken_and_loops_run_twice() -> None:
    original = Model.of(parse(DECIDED))
    x = np.array([[1, 2]], np.float32)
    a, b, d = (original.weights[name].array() for name in "abd")
    results = []
    for (way,) in branch_variants(original):
        outcome = compare(way, way)
        assert outcome.ok
        (result,) = session.Session(way).run({"x": x, "c": np.array(True), "n": np.array(0)})
        results.append(result)
        assert not list(branch_variants(way))
    np.testing.assert_allclose(results[0], x @ a @ b @ b @ d, rtol=1e-5)
    np.testing.assert_allclose(results[1], -(x @ a @ b @ b), rtol=1e-5)


@pytest.mark.parametrize(("name", "sees"), [("d", True), ("b", True), ("a", True)])
def test_a_difference_in_a_branch_that_is_not_taken_is_seen(name: str, sees: bool) -> None:
    """Whatever the seeded condition and number of iterations are."""
    one, other = Model.of(parse(DECIDED)), Model.of(parse(DECIDED))
    other.weights[name] = Weight(name, None, other.weights[name].array() * 1.5)
    for seed in range(4):
        assert compare(one, other, seed=seed).ok is not sees


def test_a_model_that_nothing_decides_goes_one_way() -> None:
    assert not list(branch_variants(model(4, 1)))
