"""Shapes inside bodies of control flow, and of what they pass on."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from control_flow_nets import NETS, net
from nets import parse
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize
from onnxprune.shapes.inference import Inferred, infer
from onnxprune.shapes.probes import Shapes, probe

STAND_IN = 13


def normalized(model: ModelProto) -> Model:
    return Normalize().run(Model.of(model)).model


def infer_once(text: str, **inputs: tuple[int, ...]) -> Inferred:
    model = normalized(parse(text))
    constants = {name: weight.array() for name, weight in model.weights.items()}
    return infer(model, inputs, constants, STAND_IN)


def probe_of(name: str) -> Shapes:
    return probe(normalized(net(name)))


@pytest.mark.parametrize("name", NETS)
def test_every_shape_is_known(name: str) -> None:
    assert None not in probe_of(name).shapes.values()


def test_shapes_in_bodies_and_behind_them() -> None:
    found = probe_of("rnn")
    wanted = {"xt": (2, 5), "hin": (2, 8), "arb": (2, 8), "hout": (2, 8), "ys": (24, 2, 8), "h": (2, 8), "i": ()}
    assert {name: found.shapes[name] for name in wanted} == wanted
    assert found.dynamic["ys"] == (True, True, False)
    assert found.dynamic["hin"] == (True, False)


def test_a_scan_drops_and_adds_its_axis_where_it_is() -> None:
    found = probe_of("lstm").shapes
    assert (found["xt"], found["kt"], found["ys"]) == ((2, 5), (2, 5), (2, 8, 24))
    batched = probe_of("batched").shapes
    assert (batched["xt"], batched["h"], batched["hT"], batched["ys"]) == ((5,), (8,), (2, 8), (2, 24, 8))


TRIPS = """(float[N,4] x, int64 fed) => (float[T,N,4] y) <int64 five = {5}, bool yes = {1}, bool no = {0}> {
  CONDITION
  y = Loop (LIMIT, GOING) <body = step (int64 i, bool going) => (bool on, float[N,4] z) { on = Identity(AGAIN)  z = Neg(x) }>
}"""


@pytest.mark.parametrize(
    ("limit", "going", "again", "expected"),
    [
        ("five", "yes", "going", 5),
        ("five", '""', "going", 5),
        ("five", "yes", "yes", 5),
        ("fed", "yes", "going", STAND_IN),
        ("five", "sometimes", "going", STAND_IN),
        ("five", "yes", "sometimes", STAND_IN),
        ('""', "yes", "sometimes", STAND_IN),
    ],
)
def test_how_often_a_loop_runs(limit: str, going: str, again: str, expected: int) -> None:
    condition = "sometimes = Greater(fed, five)" if "sometimes" in (going, again) else ""
    text = TRIPS.replace("LIMIT", limit).replace("GOING", going).replace("AGAIN", again).replace("CONDITION", condition)
    assert infer_once(text, x=(2, 4), fed=()).shapes["y"] == (expected, 2, 4)


def test_what_grows_round_a_loop_depends_on_data() -> None:
    found = probe_of("cache")
    assert found.dynamic["past"] == found.dynamic["present"] == found.dynamic["all"] == (False, True, False)
    assert found.dynamic["qk"] == (False, False, True)


ROWS = """(float[N,8] x, bool c) => (float[M,8] y) <float[1,8] one, float[3,8] three> {
  e = If (c) <then_branch = yes () => (float[A,8] p) { p = FIRST }, else_branch = no () => (float[B,8] q) { q = SECOND }>
  y = Relu(e)
}"""


@pytest.mark.parametrize(
    ("first", "second", "expected", "assumed"),
    [
        ("Neg(x)", "Abs(x)", (2, 8), []),
        ("Concat<axis = 0>(x, x)", "Abs(x)", (STAND_IN, 8), []),
        ("Identity(one)", "Abs(x)", (2, 8), [("e", 0)]),
        ("Abs(x)", "Identity(one)", (2, 8), [("e", 0)]),
        ("Identity(three)", "Abs(x)", (STAND_IN, 8), []),
    ],
)
def test_branches_of_different_sizes(first: str, second: str, expected: tuple[int, ...], assumed: list[tuple[str, int]]) -> None:
    found = infer_once(ROWS.replace("FIRST", first).replace("SECOND", second), x=(2, 8), c=())
    assert found.shapes["y"] == expected
    assert sorted(found.assumed) == assumed


def test_branches_of_different_ranks_leave_the_shape_unknown() -> None:
    found = infer_once(ROWS.replace("FIRST", "Neg(x)").replace("SECOND", "ReduceSum<keepdims = 0>(x)"), x=(2, 8), c=())
    assert found.shapes["q"] == ()
    assert found.shapes["e"] is None


STATIC = """(float[3,8] x, bool c) => (float[A,8] y, float[B,4] z) <float[1,8] one, int64[1] minus = {-1}, int64[1] two = {2},
 int64[1] i1 = {1}, int64[1] i0 = {0}, int64[1] four = {4}> {
  e = If (c) <then_branch = yes () => (float[A,8] p) { p = Identity(one) }, else_branch = no () => (float[B,8] q) { q = Neg(x) }>
  s = Shape(e)
  n = Gather(s, i0)
  twice = Mul(n, two)
  to = Concat<axis = 0>(twice, four)
  z = Reshape(e, to)
  y = Relu(e)
}"""


def test_a_static_size_that_may_be_one_is_no_constant() -> None:
    """Three rows or one: nothing tells the probes apart, and yet a pinned size would be wrong."""
    found = probe(normalized(parse(STATIC)))
    assert found.shapes["e"] == (3, 8)
    assert "twice" not in found.values
    model = normalized(parse(STATIC))
    assert next(node for node in model.graph.node if node.op_type == "Reshape").input[1] == "to"


def test_a_first_state_of_one_row_broadcasts() -> None:
    found = probe_of("first_state")
    assert found.shapes["hin"] == found.shapes["hout"] == (2, 8)
    assert found.dynamic["hin"] == (True, False)


FUSED = """(float[N,T,6] x, int64 n) => (float[N,5] y) <float[6,8] w, float[8,8] v, float[8,5] o, int64 zero = {0}> {
  f = com.microsoft.Gelu(x)
  t = Gather<axis = 1>(f, zero)
  a = MatMul(t, w)
  h = Loop (n, "", a) <body = step (int64 i, bool going, float[N,8] hin) => (bool on, float[N,8] hout) {
    on = Identity(going)
    b = MatMul(hin, v)
    g = com.microsoft.Gelu(b)
    hout = Add(g, hin)
  }>
  y = MatMul(h, o)
}"""


def test_operators_that_inference_does_not_know_are_run_inside_bodies_too() -> None:
    found = probe(normalized(parse(FUSED, domains=["com.microsoft"])))
    assert found.shapes["f"] == (2, 24, 6)
    assert found.shapes["g"] == found.shapes["hout"] == found.shapes["h"] == (2, 8)
    assert found.dynamic["g"] == (True, False)


def test_a_long_chain_of_branches_is_inferred_in_one_go() -> None:
    count = 60
    nodes = "\n".join(
        f"h{i + 1} = If (c) <then_branch = a{i} () => (float[N,8] p{i}) {{ p{i} = Relu(h{i}) }},"
        f" else_branch = b{i} () => (float[N,8] q{i}) {{ q{i} = Tanh(h{i}) }}>"
        for i in range(count)
    )
    text = f"(float[N,8] h0, bool c) => (float[N,8] h{count}) {{ {nodes} }}"
    assert infer_once(text, h0=(2, 8), c=()).shapes[f"q{count - 1}"] == (2, 8)


def test_constants_of_every_type_pass_into_bodies() -> None:
    text = """(float[N,4] x, bool c) => (int64[2] y) <int64[2] k = {3, 4}> {
      y = If (c) <then_branch = a () => (int64[2] p) { p = Identity(k) }, else_branch = b () => (int64[2] q) { q = Add(k, k) }>
    }"""
    found = infer_once(text, x=(2, 4), c=())
    assert found.shapes["y"] == (2,)
    assert "y" not in found.values
    np.testing.assert_array_equal(found.values["q"], [6, 8])
