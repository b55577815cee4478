"""The verifier: it sees what is wrong, finds who is to blame, and lets the rest pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from nets import NETS, both, parse
from onnxprune import Recipe, VerificationError, prune
from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules import registry
from onnxprune.axes.rules.registry import Rule, axes
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.node import NodeView
from onnxprune.verify.law import compare, isolate

# --- Wrong rules -----------------------------------------------------------------------------------------------------

TWO_WAYS = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,1,1] w1, float[6,8,1,1] w2, float[8,3,1,1] w3, float[4,8,1,1] w4, float[4,6,1,1] w5> {
  a = Conv(x, w1)
  ra = Relu(a)
  b = Conv(ra, w2)
  rb = Relu(b)
  c = Conv(x, w3)
  s = Softmax<axis = 1>(c)
  l = Conv(rb, w5)
  r = Conv(s, w4)
  y = Add(l, r)
}"""
"""The groups w1:0 and w2:0 are free; w3:0 passes a Softmax."""


def same(node: NodeView) -> AxisRule:
    return axes("... -> ...")


def inject(monkeypatch: pytest.MonkeyPatch, op: str, function: Rule) -> None:
    monkeypatch.setitem(registry._RULES, ("", op), function)


def test_a_softmax_claimed_to_be_elementwise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse(TWO_WAYS)
    assert [g.id for g in analyze(model).coupling.groups] == ["w1:0", "w2:0"]
    inject(monkeypatch, "Softmax", same)
    assert [g.id for g in analyze(model).coupling.groups] == ["w1:0", "w2:0", "w3:0"]
    check_frozen(model, {"w3:0"}, {"w1:0", "w2:0"})


def check_frozen(model: ModelProto, frozen: set[str], pruned: set[str]) -> None:
    """Pruning leaves exactly the frozen groups whole, says why, and what it emits is right."""
    result = prune(model, Recipe(target="channels=0.5", align="1"))
    report = result.report
    assert set(report.frozen) == frozen
    assert all("differs from the masked model's" in why or "does not" in why for why in report.frozen.values())
    assert report.verification is not None
    assert report.verification.ok
    assert {group.id for group in report.groups if group.kept < group.size} == pruned
    refused = {refusal["axis"]: refusal["reason"] for refusal in report.refusals}
    assert {refused[name] for name in frozen} == {"verification"}
    assert report.notes[0].startswith(f"left whole, because they failed verification: {len(frozen)} of ")


def test_a_transpose_claimed_not_to_permute_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, "Transpose", same)
    model = parse("""(float[N,8,8] x) => (float[N,8,8] y, float[N,8,4] z)
    <float[8,8] w1, float[8,8] w2, float[8,6] w3, float[6,4] w4> {
      a = MatMul(x, w1)
      t = Transpose<perm = [0,2,1]>(a)
      y = MatMul(t, w2)
      b = MatMul(x, w3)
      r = Relu(b)
      z = MatMul(r, w4)
    }""")
    check_frozen(model, {"w1:1"}, {"w3:1"})


def test_a_product_that_does_not_couple_what_it_sums_over_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def loose(node: NodeView) -> AxisRule:
        return axes("b k, j n -> b n", zero=((0, 1),))

    inject(monkeypatch, "MatMul", loose)
    model = parse("""(float[N,4] x) => (float[N,4] y)
    <float[6,4] w1, float[6] b1, float[6,5] w2, float[4,5] w3> {
      h = Gemm<transB = 1>(x, w1, b1)
      r = Relu(h)
      m = MatMul(r, w2)
      y = Gemm<transB = 1>(m, w3)
    }""")
    result = prune(model, Recipe(target="channels=0.5", align="1"))
    assert {group.id for group in result.report.groups if group.kept < group.size} == {"w2:1"}
    assert set(result.report.frozen) == {"w1:0", "w2:0"}


def test_an_order_claimed_away_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a Split is taken for the other half."""

    def crossed(node: NodeView) -> AxisRule:
        return axes("n (a+b) h w -> n b h w, n a h w", sizes_at={1: ["a", "b"]})

    inject(monkeypatch, "Split", crossed)
    model = parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y)
    <float[8,3,1,1] w1, int64[2] parts = {4,4}, float[4,4,1,1] wl, float[4,4,1,1] wr, float[6,4,1,1] w2, float[4,6,1,1] w3> {
      a = Conv(x, w1)
      l, r = Split<axis = 1>(a, parts)
      cl = Conv(l, wl)
      cr = Conv(r, wr)
      s = Add(cl, cr)
      b = Conv(s, w2)
      y = Conv(b, w3)
    }""")
    result = prune(model, Recipe(target="channels=0.5", align="1"))
    assert set(result.report.frozen) == {"w1:0.0", "w1:0.1"}
    assert result.report.verification is not None
    assert result.report.verification.ok


def test_no_verification_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, "Softmax", same)
    report = prune(parse(TWO_WAYS), Recipe(target="channels=0.5", align="1", verify=False)).report
    assert report.verification is None
    assert not report.frozen


def test_a_model_that_does_not_run_cannot_be_verified() -> None:
    model = parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[8,3,1,1] w1, float[4,8,1,1] w2> {
      a = Conv(x, w1)
      b = Conv(a, w2)
      y = Relu(b)
    }""")
    model.graph.node[2].op_type, model.graph.node[2].domain = "Foo", "my.domain"
    model.opset_import.add(domain="my.domain", version=1)
    with pytest.raises(VerificationError, match=r"cannot be verified: .*; --no-verify skips the proof"):
        prune(model, Recipe(target="channels=0.5", align="1"))


def test_a_choice_per_channel_is_no_reason_to_freeze() -> None:
    model = parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y)
    <float[8,3,1,1] w1, float[8,3,1,1] w2, float[4,8,1,1] w3> {
      a = Conv(x, w1)
      b = Conv(x, w2)
      m = Greater(a, b)
      c = Where(m, a, b)
      y = Conv(c, w3)
    }""")
    found = analyze(model)
    pruned, masked = both(found, {"w1:0": [0, 3, 4]})
    outcome = compare(pruned, masked)
    assert outcome.ok, outcome.text


# --- isolate ---------------------------------------------------------------------------------------------------------

NAMES = [f"g{i}" for i in range(13)]


@given(st.sets(st.sampled_from(NAMES)))
def test_isolate_finds_exactly_those_that_break_it_alone(bad: set[str]) -> None:
    assert set(isolate(NAMES, lambda some: not bad & set(some))) == bad


@given(st.sets(st.sampled_from(NAMES), min_size=2, max_size=2))
def test_isolate_finds_those_that_break_it_in_company(pair: set[str]) -> None:
    found = isolate(NAMES, lambda some: not pair <= set(some))
    assert pair <= set(found)
    assert not pair <= set(NAMES) - set(found)


def test_isolate_asks_few_questions() -> None:
    asked: list[Sequence[str]] = []

    def holds(some: Sequence[str]) -> bool:
        asked.append(some)
        return "g70" not in some

    assert isolate([f"g{i}" for i in range(128)], holds) == ["g70"]
    assert len(asked) <= 2 * 7 + 1


def test_isolate_without_cause() -> None:
    assert isolate([], lambda _: True) == []
    assert isolate(NAMES, lambda _: True) == []


# --- compare ---------------------------------------------------------------------------------------------------------


def constant_output(values: Any, dtype: str = "float") -> Model:
    """A model whose output is a constant."""
    array = np.asarray(values)
    model = parse(f"(float[1] x) => ({dtype}[{len(array)}] y) <{dtype}[{len(array)}] c> {{ y = Identity(c) }}")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "c"))
    return Model.of(model)


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("got", "expected", "ok"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2.0001], [1, 2], True),
        ([1, 2.001], [1, 2], False),
        ([1e-3, 1000], [0, 1000], True),  # relative to the largest entry
        ([1e-5, 1e-5], [0, 0], True),
        ([1e-3, 0], [0, 0], False),
        ([INF, 1], [INF, 1], True),
        ([INF, 1], [-INF, 1], False),
        ([INF, 1], [1, 1], False),
        ([1, 1], [INF, 1], False),
        ([NAN, 1], [NAN, 1], True),
        ([NAN, 1], [1, 1], False),
        ([1, 1], [NAN, 1], False),
        ([NAN, 2], [NAN, 1], False),
        ([INF, 1.5], [INF, 1], False),
    ],
)
def test_floats(got: list[float], expected: list[float], ok: bool) -> None:
    outcome = compare(*(constant_output(np.array(side, np.float32)) for side in (got, expected)))
    assert outcome.ok is ok
    assert bool(outcome.text) is not ok


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_integers_must_be_equal(dtype: str) -> None:
    one, other = (constant_output(np.array(side, np.dtype(dtype)), dtype) for side in ([0, 1, 1], [0, 1, 0]))
    assert compare(one, one).ok
    outcome = compare(one, other)
    assert (outcome.ok, outcome.runs) == (False, 1)
    assert "'y' differs from the masked model's" in outcome.text


def test_large_integers_must_be_equal() -> None:
    one, other = (constant_output(np.array([2**60 + i]), "int64") for i in (0, 1))
    assert not compare(one, other).ok


def test_an_output_of_another_shape_or_type() -> None:
    short, long = (constant_output(np.ones(n, np.float32)) for n in (2, 3))
    double = constant_output(np.ones(2), "double")
    for one, other in ((short, long), (short, double)):
        assert not compare(one, other).ok
        assert not compare(one, other, values=False).ok


def test_values_may_be_left_out() -> None:
    assert compare(*(constant_output(np.array([side], np.float32)) for side in (1, 2)), values=False).ok


def test_a_pruned_model_that_does_not_load_or_run() -> None:
    good = Model.of(parse(NETS["residual"]))
    broken = good.copy()
    broken.graph.node[0].op_type = "NoSuchOperator"
    outcome = compare(broken, good)
    assert (outcome.ok, outcome.runs) == (False, 0)
    assert "does not load it" in outcome.text
    smaller = parse("(float[N,4] x) => (float[N,5] y) <float[3,5] w> { y = MatMul(x, w) }")
    fitting = parse("(float[N,4] x) => (float[N,5] y) <float[4,5] w> { y = MatMul(x, w) }")
    assert not compare(Model.of(smaller), Model.of(fitting)).ok


def test_every_single_wrong_position_is_seen() -> None:
    """Zeroing other positions than those that were cut shows, whichever group."""
    for name in ("chain", "residual", "attention", "shuffle"):
        found = analyze(parse(NETS[name]))
        for group in found.coupling.groups:
            pruned, _ = both(found, {group.id: list(range(group.size - 1))})
            _, masked = both(found, {group.id: list(range(1, group.size))})
            assert not compare(pruned, masked).ok, f"{name} {group.id}"


# --- Sizes that are not as free as they are declared ------------------------------------------------------------------


def test_sizes_that_must_be_equal_though_their_names_differ() -> None:
    report = prune(
        parse("""(int64[N,S] ids, int64[M,T] mask) => (float[N,S,4] y) <float[9,8] w, float[8,12] v, float[12,4] u> {
          e = Gather(w, ids) f = Cast<to = 1>(mask) a = Constant<value_ints = [2]>() m = Unsqueeze(f, a) p = Mul(e, m)
          q = MatMul(p, v) r = Relu(q) y = MatMul(r, u)
        }"""),
        Recipe(target="channels=0.5", align="1"),
    ).report
    assert report.verification is not None
    assert report.verification.runs == 3
    assert {group.id for group in report.groups} == {"w:1", "v:1"}


def test_an_image_size_that_was_left_open_by_mistake() -> None:
    report = prune(
        parse("""(float[N,1,H,W] x) => (float[N,5] y) <float[8,1,5,5] w, float[4608,5] v> {
          c = Conv(x, w) r = Relu(c) f = Flatten(r) y = MatMul(f, v)
        }"""),
        Recipe(target="channels=0.5", align="1"),
    ).report
    assert report.verification is not None
    assert report.verification.ok
    assert [(group.kept, group.size) for group in report.groups] == [(4, 8)]
