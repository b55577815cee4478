"""Comparisons that test nothing are told from those that do, and others are found instead."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune import Recipe, prune
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.verify.comparison import difference
from onnxprune.verify.law import compare, unchanged
from onnxprune.verify.verdicts import Verdict

NET = "a = MatMul(x, w1)\n b = Relu(a)\n l = MatMul(b, w2)\n"
WEIGHTS = "<float[8,32] w1, float[32,4] w2>"
NETS = {
    "a logarithm of what noise makes negative": f"""(float[N,8] x, float rate) => (float[N,4] y) {WEIGHTS} {{
      {NET} ten = Constant<value = float {{10.0}}>()
      d = Sub(rate, ten)
      k = Log(d)
      y = Mul(l, k)
    }}""",
    "tokens that are padding": """(int64[N,T] ids) => (float[N,T,4] y) <float[50,8] table, float[8,32] w1, float[32,4] w2> {
      x = Gather(table, ids)
      one = Constant<value = int64 {1}>()
      a = MatMul(x, w1)
      b = Relu(a)
      l = MatMul(b, w2)
      m = Greater(ids, one)
      f = Cast<to = 1>(m)
      axes = Constant<value = int64[1] {2}>()
      k = Unsqueeze(f, axes)
      y = Mul(l, k)
    }""",
    "a sigmoid that is one": f"""(float[N,8] x) => (float[N,4] y) {WEIGHTS} {{
      {NET} high = Constant<value = float {{9000.0}}>()
      h = Add(l, high)
      y = Sigmoid(h)
    }}""",
    "a logarithm that no inputs make finite": f"""(float[N,8] x) => (float[N,4] y) {WEIGHTS} {{
      {NET} square = Mul(l, l)
      minus = Neg(square)
      k = Log(minus)
      y = Mul(l, k)
    }}""",
    "a choice of the largest": f"""(float[N,8] x) => (int64[N] y) {WEIGHTS} {{
      {NET} far = Constant<value = float[4] {{0.0, 0.0, 9000.0, 0.0}}>()
      h = Add(l, far)
      y = ArgMax<axis = 1, keepdims = 0>(h)
    }}""",
}


def sevens(model: Model, *names: str) -> Model:
    result = model.copy()
    for name in names or ("w1", "w2"):
        weight = result.weights[name]
        result.weights[name] = Weight(name, None, np.full(weight.shape, 7, np.float32))
    return result


@pytest.mark.parametrize("text", NETS.values(), ids=NETS)
def test_weights_overwritten_with_sevens_are_seen(text: str) -> None:
    """Whatever the outputs hide."""
    model = Model.of(parse(text))
    right = compare(model, model.copy())
    assert right.ok
    assert not right.untested
    assert not compare(sevens(model), model).ok


@pytest.mark.parametrize("weight", ["w1", "w2"])
@pytest.mark.parametrize("text", [NETS["a sigmoid that is one"], NETS["tokens that are padding"]], ids=["sigmoid", "tokens"])
def test_so_is_a_single_weight(text: str, weight: str) -> None:
    model = Model.of(parse(text))
    assert not compare(sevens(model, weight), model).ok


def test_outputs_that_say_nothing_are_compared_in_front() -> None:
    model = Model.of(parse(NETS["a sigmoid that is one"]))
    (found,) = compare(model, model.copy()).outputs
    assert found.verdict is Verdict.TESTED
    assert found.why == "is constant: compared in front of that, at l"


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("y = Sub(l, l)", ""),
        ("n = Sub(x, x)\n y = MatMul(n, v)", "is constant on all inputs tried"),
        ("n = Sub(x, x)\n q = Div(n, n)\n y = MatMul(q, v)", "is nowhere finite on all inputs tried"),
        ("n = Sub(x, x)\n p = MatMul(n, v)\n y = Add(p, x)", "does not move when weights do on all inputs tried"),
    ],
)
def test_an_output_of_which_nothing_is_known(op: str, why: str) -> None:
    """It is not called tested, with the reason; where what is in front of it tells enough, that does."""
    text = "(float[N,8] x) => (float[N,8] z, float[N,8] y) <float[8,8] w, float[8,8] v> { z = MatMul(x, w)\n l = MatMul(x, v)\n "
    model = Model.of(parse(f"{text}{op} }}"))
    outcome = compare(model, model.copy())
    z, y = outcome.outputs
    assert outcome.ok
    assert z.verdict is Verdict.PROVEN
    assert (y.verdict, y.why) == (Verdict.NOT_TESTED, why) if why else y.verdict is Verdict.TESTED


def test_outputs_that_depend_on_no_weight_need_not_move() -> None:
    model = Model.of(parse("(float[N,8] x) => (int64[2] s, float[N,4] y) <float[8,4] w> { s = Shape(x)\n y = MatMul(x, w) }"))
    assert {one.verdict for one in compare(model, model.copy()).outputs} == {Verdict.PROVEN}


def test_what_differs_by_rounding_is_tested_and_not_proven() -> None:
    model = Model.of(parse("(float[N,8] x) => (float[N,4] y) <float[8,4] w> { y = MatMul(x, w) }"))
    other = model.copy()
    other.weights["w"] = Weight("w", None, model.weights["w"].array() * np.float32(1 + 1e-6))
    assert [one.verdict for one in compare(other, model).outputs] == [Verdict.TESTED]


def test_what_runs_and_need_not_be_equal_is_not_tested() -> None:
    model = Model.of(parse("(float[N,8] x) => (float[N,4] y) <float[8,4] w> { y = MatMul(x, w) }"))
    assert compare(model, model, values=False).untested


def test_a_file_that_does_not_run_tests_nothing() -> None:
    model = Model.of(parse("(float[N,8] x) => (float[N,4] y) <float[8,4] w> { y = MatMul(x, w) }"))
    other = Model.of(parse("(float[N,8] x) => (float[N,4] y) <float[9,4] w> { y = MatMul(x, w) }"))
    outcome = unchanged(model, other)
    assert outcome.ok
    assert [one.why for one in outcome.untested] == ["the file does not run"]
    assert "does not run" in outcome.notes[0]


@pytest.mark.parametrize(
    ("got", "expected", "gap"),
    [
        ([np.ones(2)], [np.ones(2), np.ones(2)], np.inf),
        ([np.ones(2)], [np.ones(2) * 2], 0.5),
        ({"a": 1.0}, {"b": 1.0}, np.inf),
        ({"a": 1.0}, {"a": 2.0}, 0.5),
        ([{"a": 1}], [{"a": 1}], 0.0),
        (np.array([np.nan, 1.0]), np.array([np.nan, 2.0]), 0.5),
        (np.array([np.nan, 1.0]), np.array([1.0, 2.0]), np.inf),
    ],
)
def test_differences_of_all_that_a_model_returns(got: object, expected: object, gap: float) -> None:
    assert difference(got, expected) == gap


@pytest.mark.parametrize("text", NETS.values(), ids=NETS)
def test_the_whole_command_tests_every_output(text: str) -> None:
    check = prune(parse(text), Recipe(target="channels=0.5", align="1")).report.verification
    assert check is not None
    assert not check.untested


def test_what_moves_in_the_last_run_alone_is_tested() -> None:
    """Of one sample nothing is left; of two there is."""
    text = f"""(float[N,8] x) => (float[M,4] y)
    {WEIGHTS[:-1]}, int64[1] one = {{1}}, int64[1] end = {{99}}, int64[1] axis = {{0}}> {{
      {NET} y = Slice(l, one, end, axis)
    }}"""
    model = Model.of(parse(text))
    check = unchanged(model, model)
    assert [one.verdict for one in check.outputs] == [Verdict.PROVEN]
    assert not unchanged(sevens(model), model).ok
