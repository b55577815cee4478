"""Before and Expected: bodies share one namespace with the main graph, which has their constants."""

from __future__ import annotations

from itertools import pairwise

import pytest
from onnx import ModelProto, helper

from control_flow_nets import NETS, net
from nets import assert_same_graph, assert_same_values, parse
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_body, every_graph, every_node
from onnxprune.passes import Normalize
from onnxprune.passes.bodies import hoist, unique_names


def normalized(model: ModelProto) -> Model:
    return Normalize().run(Model.of(model)).model


def check(before: ModelProto, expected: ModelProto) -> None:
    """Normalising gives the expected graph, which computes the same, and makes it again from that."""
    model = normalized(before)
    assert_same_graph(model, expected)
    assert_same_values(model, Model.of(before))
    assert_same_graph(normalized(model.to_proto()), expected)


CLASH = """(float[N,4] x, bool c) => (float[N,4] y) <float[4] h> {
  a = Add(x, h)
  y = If (c) <
    then_branch = yes () => (float[N,4] r) <float[4] k> {
      b = Mul(a, k)
      r = If (c) <then_branch = deep () => (float[N,4] s) { t = Neg(b) s = Add(t, a) },
                  else_branch = low () => (float[N,4] s) <float[4] t> { s = Add(b, t) }>
    },
    else_branch = no () => (float[N,4] r) <float[4] k> { b = Sub(a, k) r = Relu(b) }>
}"""


def test_names_become_unique_over_all_bodies() -> None:
    before = parse(CLASH)
    model = Model.of(before)
    unique_names(model)
    made = [name for graph in every_graph(model.graph) for node in graph.node for name in node.output]
    made += [tensor.name for graph in every_graph(model.graph) for tensor in graph.initializer]
    assert len(set(made)) == len(made)
    assert {"y", "r", "r__1", "b", "b__1", "s", "s__1", "t", "t__1", "k", "k__1"} <= set(made)
    assert_same_values(model, Model.of(before))


def test_names_that_clash_nowhere_stay() -> None:
    model = Model.of(parse(NETS["rnn"]))
    before = model.proto.SerializeToString(deterministic=True)
    unique_names(model)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_a_new_name_is_none_that_a_body_uses() -> None:
    model = Model.of(parse(CLASH.replace("k>", "k__1>").replace(", k)", ", k__1)")))
    assert model.fresh_name("k__1") == "k__1__1"
    assert model.fresh_name("b") == "b__1"


@pytest.mark.parametrize("name", NETS)
def test_constants_of_bodies_move_to_the_main_graph(name: str) -> None:
    model = Model.of(net(name))
    inside = sum(len(body.initializer) for body in every_body(model.graph))
    count = len(model.weights)
    unique_names(model)
    hoist(model)
    assert len(model.weights) == count + inside
    assert not any(body.initializer for body in every_body(model.graph))
    assert_same_values(model, Model.of(net(name)))


def test_constants_that_old_models_list_as_inputs_of_bodies() -> None:
    before = parse(NETS["rnn"])
    (loop,) = (node for node in before.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    body.initializer.append(helper.make_tensor("extra", 1, [8], [1.0] * 8))
    body.input.append(helper.make_tensor_value_info("extra", 1, [8]))
    model = Model.of(before)
    hoist(model)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert [value.name for value in loop.attribute[0].g.input] == ["i", "going", "hin"]
    assert "extra" in model.weights


def test_a_body_returns_a_copy_of_a_constant() -> None:
    before = parse("""(float[N,4] x, bool c) => (float[N,4] y) {
      b = If (c) <then_branch = yes () => (float[4] p) <float[4] p = {1, 2, 3, 4}> { q = Neg(p) },
                  else_branch = no () => (float[4] r) { r = Constant<value = float[4] {5,6,7,8}>() }>
      y = Add(x, b)
    }""")
    expected = parse("""(float[N,4] x, bool c) => (float[N,4] y) <float[4] p = {1, 2, 3, 4}, float[4] r = {5, 6, 7, 8}> {
      b = If (c) <then_branch = yes () => (float[4] p__result) { p__result = Identity(p) },
                  else_branch = no () => (float[4] r__result) { r__result = Identity(r) }>
      y = Add(x, b)
    }""")
    check(before, expected)


def test_what_constants_feed_in_a_body_is_folded_and_what_nothing_reads_is_dropped() -> None:
    before = parse("""(float[N,4] x, bool c) => (float[N,3] y) <float[4,3] w, float[3,4] v> {
      y = If (c) <then_branch = yes () => (float[N,3] p) { s = Sign(w)  u = Neg(x)  p = MatMul(x, s) },
                  else_branch = no () => (float[N,3] q) { t = Transpose(v)  q = MatMul(x, t) }>
    }""")
    expected = parse("""(float[N,4] x, bool c) => (float[N,3] y) <float[4,3] s, float[4,3] t> {
      y = If (c) <then_branch = yes () => (float[N,3] p) { p = MatMul(x, s) },
                  else_branch = no () => (float[N,3] q) { q = MatMul(x, t) }>
    }""")
    check(before, expected)


def test_a_vector_that_bodies_share_is_untied() -> None:
    before = parse("""(float[N,8] x, bool c) => (float[N,8] y) <float[8] b, float[8,8] w> {
      a = Gemm(x, w, b)
      y = If (c) <then_branch = yes () => (float[N,8] p) { p = Gemm(a, w, b) },
                  else_branch = no () => (float[N,8] q) { q = Add(a, b) }>
    }""")
    expected = parse("""(float[N,8] x, bool c) => (float[N,8] y)
    <float[8] b, float[8] b__copy, float[8] b__copy__1, float[8,8] w> {
      a = Gemm(x, w, b)
      y = If (c) <then_branch = yes () => (float[N,8] p) { p = Gemm(a, w, b__copy) },
                  else_branch = no () => (float[N,8] q) { q = Add(a, b__copy__1) }>
    }""")
    check(before, expected)


def test_sizes_in_bodies_are_pinned() -> None:
    before = parse("""(float[N,6,4] x, bool c) => (float[N,24] y) <int64 one = {1}, int64[1] minus = {-1}, int64[1] i0 = {0}> {
      y = If (c) <
        then_branch = yes () => (float[N,24] p) {
          s = Shape(x)  n = Gather(s, i0)  to = Concat<axis = 0>(n, minus)  p = Reshape(x, to) },
        else_branch = no () => (float[N,24] q) { q = Flatten(x) }>
    }""")
    expected = parse("""(float[N,6,4] x, bool c) => (float[N,24] y) <int64[2] to__pinned = {0, -1}> {
      y = If (c) <then_branch = yes () => (float[N,24] p) { p = Reshape(x, to__pinned) },
                  else_branch = no () => (float[N,24] q) { q = Flatten(x) }>
    }""")
    check(before, expected)


CHOICE = """(float[N,4] x, bool fed) => (float[N,4] y, float[N,4] z) <bool yes = {1}, bool no = {0}> {
  c = CONDITION
  y, z = If (c) <then_branch = a () => (float[N,4] p, float[N,4] p2) { p = Relu(x) p2 = Neg(p) },
                 else_branch = b () => (float[N,4] q, float[N,4] q) { q = Tanh(x) }>
}"""
HEAD = "(float[N,4] x, bool fed) => (float[N,4] y, float[N,4] z)"


def test_a_branch_that_is_always_taken_is_inlined() -> None:
    check(parse(CHOICE.replace("CONDITION", "Identity(yes)")), parse(f"{HEAD} {{ y = Relu(x) z = Neg(y) }}"))


def test_a_value_that_a_branch_returns_twice() -> None:
    model = normalized(parse(CHOICE.replace("CONDITION", "And(yes, no)")))  # onnxruntime returns nothing the second time
    assert_same_graph(model, parse(f"{HEAD} {{ y = Tanh(x) z = Identity(y) }}"))


def test_a_branch_that_the_inputs_decide_stays() -> None:
    model = normalized(parse(CHOICE.replace("CONDITION", "And(yes, fed)")))
    assert [node.op_type for node in model.graph.node] == ["And", "If"]


SIZES = """(float[N,4] x) => (float[N,4] y)
<int64 zero = {0}, int64 one = {1}, int64 four = {4}, int64 ten = {10}, int64 hundred = {100}, bool yes = {1}> {
  s = Shape(x)
  n = Gather(s, zero)
  w = Gather(s, one)
  c = CONDITION
  y = If (c) <then_branch = a () => (float[N,4] p) { p = Relu(x) }, else_branch = b () => (float[N,4] q) { q = Tanh(x) }>
}"""


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("Equal(w, four)", ["Relu"]),
        ("Equal(w, one)", ["Tanh"]),
        ("Less(n, hundred)", ["Shape", "Gather", "Less", "If"]),  # true of both probes, and not of every batch
        ("Equal(n, zero)", ["Shape", "Gather", "Equal", "If"]),
    ],
)
def test_static_sizes_decide_and_dynamic_ones_do_not(condition: str, left: list[str]) -> None:
    before = parse(SIZES.replace("CONDITION", condition))
    model = normalized(before)
    assert [node.op_type for node in model.graph.node] == left
    assert_same_values(model, Model.of(before))


def test_static_sizes_decide_behind_a_node_of_several_outputs() -> None:
    before = parse(
        SIZES.replace("s = Shape(x)", "l, r = Split<axis = 1, num_outputs = 2>(x)  s = Shape(r)").replace(
            "CONDITION", "Equal(w, one)"
        )
    )
    model = normalized(before)
    assert [node.op_type for node in model.graph.node] == ["Tanh"]
    assert_same_values(model, Model.of(before))


def test_a_branch_inside_a_branch_that_is_taken() -> None:
    before = parse("""(float[N,4] x, bool fed) => (float[N,4] y) <bool yes = {1}> {
      y = If (yes) <
        then_branch = a () => (float[N,4] p) {
          h = Neg(x)
          p = If (fed) <then_branch = c () => (float[N,4] h2) { h2 = Relu(h) },
                        else_branch = d () => (float[N,4] h3) { g = Tanh(h) h3 = Add(g, h) }>
        },
        else_branch = b () => (float[N,4] q) { q = Tanh(x) }>
    }""")
    expected = parse("""(float[N,4] x, bool fed) => (float[N,4] y) {
      h = Neg(x)
      y = If (fed) <then_branch = c () => (float[N,4] h2) { h2 = Relu(h) },
                    else_branch = d () => (float[N,4] h3) { g = Tanh(h) h3 = Add(g, h) }>
    }""")
    check(before, expected)


LOOP = """(float[N,4] x) => (float[N,4] y) <int64 zero = {0}, int64 one = {1}, int64 ten = {10}> {
  s = Shape(x)
  n = Gather(s, zero)
  w = Gather(s, one)
  t = LIMIT
  y = Loop (t, "", x) <body = step (int64 i, bool going, float[N,4] h) => (bool on, float[N,4] g) {
    on = Identity(going)  g = Relu(h) }>
}"""


@pytest.mark.parametrize(("limit", "pinned"), [("Identity(w)", True), ("Add(w, one)", True), ("Min(n, one)", False)])
def test_trips_that_static_sizes_limit_are_spelled(limit: str, pinned: bool) -> None:
    """A loop over channels must run as often after pruning; what is the same in both probes by chance is left alone."""
    before = parse(LOOP.replace("LIMIT", limit))
    model = normalized(before)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert (loop.input[0] in model.weights) is pinned
    assert_same_values(model, Model.of(before))


def test_order_is_kept() -> None:
    """What a body reads is computed before its node, at every level."""
    for name in NETS:
        model = normalized(net(name))
        for graph in every_graph(model.graph):
            places = {made: at for at, node in enumerate(graph.node) for made in node.output}
            for at, node in enumerate(graph.node):
                assert all(places.get(read, -1) < at for read in node.input)
        assert all(one != other for one, other in pairwise(model.weights))


def test_a_branch_that_is_inlined_decides_the_next_one() -> None:
    """Inside a branch that an input chooses: whether the channel is squeezed decides the rank, and that what comes then."""
    model = parse(
        """(float[N,T] x, bool c) => (float[N,T] y)
        <int64[1] one = {1}, int64 first = {1}, int64 zero = {0}, int64 single = {1}, int64 two = {2}> {
          y = If (c) <
            then_branch = yes () => (float[N,T] p) {
              u = Unsqueeze(x, one) s = Shape(u) d = Gather(s, first) e = Equal(d, single)
              v = If (e) <then_branch = a () => (m) { m = Squeeze(u, one) }, else_branch = b () => (k) { k = Identity(u) }>
              z = Shape(v) r = Shape(z) n = Squeeze(r) f = Equal(n, two)
              w = If (f) <then_branch = g () => (i) { i = Neg(v) }, else_branch = h () => (j) { j = Squeeze(v, one) }>
              p = Relu(w)
            },
            else_branch = no () => (float[N,T] q) { q = Neg(x) }>
        }"""
    )
    found = Normalize().run(Model.of(model))
    assert [node.op_type for node in every_node(found.model.graph)].count("If") == 1
    assert None not in found.shapes.shapes.values()
