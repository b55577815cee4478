"""Before and Expected: one spelling for constants and sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from nets import NETS, assert_same_graph, assert_same_values, check_law, parse, some
from onnxprune import Recipe, prune
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize


def normalized(model: ModelProto) -> Model:
    return Normalize().run(Model.of(model)).model


def check(before: ModelProto, expected: ModelProto) -> None:
    """The pass makes the expected graph, which computes the same, and makes it again from that."""
    data = before.SerializeToString(deterministic=True)
    model = normalized(before)
    assert before.SerializeToString(deterministic=True) == data
    assert_same_graph(model, expected)
    assert_same_values(model, Model.of(before))
    assert_same_graph(normalized(model.to_proto()), expected)


def test_a_constant_node_is_an_initializer() -> None:
    before = parse("""(float[N,4] x) => (float[N,4] y) {
      c = Constant<value = float[4] {1, 2, 3, 4}>()
      a = Mul(x, c)
      f = Constant<value_float = 0.5>()
      b = Add(a, f)
      i = Constant<value_ints = [0, 4]>()
      y = Reshape(b, i)
    }""")
    expected = parse("""(float[N,4] x) => (float[N,4] y) <float[4] c, float f, int64[2] i = {0, 4}> {
      a = Mul(x, c)
      b = Add(a, f)
      y = Reshape(b, i)
    }""")
    check(before, expected)
    assert normalized(before).weights["c"].array().tolist() == [1, 2, 3, 4]
    assert normalized(before).weights["f"].array().tolist() == 0.5


def test_an_identity_of_an_initializer_is_folded_for_each_reader() -> None:
    """The TorchScript exporter merges equal constants through Identity."""
    before = parse("""(float[N,3,4,4] x) => (float[N,8,4,4] y) <float[8,3,1,1] w1, float[8,8,1,1] w2, float[8] zero> {
      same = Identity(zero)
      a = Conv(x, w1, zero)
      y = Conv(a, w2, same)
    }""")
    expected = parse("""(float[N,3,4,4] x) => (float[N,8,4,4] y)
    <float[8,3,1,1] w1, float[8,8,1,1] w2, float[8] zero, float[8] same> {
      a = Conv(x, w1, zero)
      y = Conv(a, w2, same)
    }""")
    check(before, expected)


def test_what_constants_alone_feed_is_folded() -> None:
    before = parse("""(float[N,4] x) => (float[N,3] y) <float[4,3] w, float[4,3] mask> {
      m = Mul(w, mask)
      s = Sign(m)
      y = MatMul(x, s)
    }""")
    check(before, parse("(float[N,4] x) => (float[N,3] y) <float[4,3] s> { y = MatMul(x, s) }"))
    weights = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    np.testing.assert_array_equal(normalized(before).weights["s"].array(), np.sign(weights["w"] * weights["mask"]))


@pytest.mark.parametrize("op", ["DequantizeLinear(q, scale)", "RandomNormalLike(w)"])
def test_decoders_and_random_numbers_are_not_folded(op: str) -> None:
    before = parse(f"(float[N,4] x) => (float[N,3] y) <int8[4,3] q, float scale, float[4,3] w> {{ d = {op}\n y = MatMul(x, d) }}")
    assert [node.op_type for node in normalized(before).graph.node] == [op.partition("(")[0], "MatMul"]


def test_a_folded_result_is_not_larger_than_what_it_comes_from() -> None:
    text = """(float[N,{n}] x) => (float[N,{n}] y) <float[1,{n}] w, int64[2] to = {{{n}, {n}}}> {{
      e = Expand(w, to)
      y = MatMul(x, e)
    }}"""
    for size, nodes in ((8, 1), (256, 2)):  # 256 KiB from 1 KiB
        assert len(normalized(parse(text.format(n=size))).graph.node) == nodes


def test_weights_that_the_graph_generates_become_constants() -> None:
    text = """(float[N,256] x) => (float[N,256] y) <int64[2] shape = {256, 256}> {
      w = ConstantOfShape<value = float[1] {0.5}>(shape)
      y = MatMul(x, w)
    }"""
    assert normalized(parse(text)).weights["w"].array().tolist() == [[0.5] * 256] * 256


def test_a_shared_vector_is_untied_and_a_shared_matrix_is_not() -> None:
    before = parse("""(float[N,8] x) => (float[N,8] y) <float[8,8] w, float[8] b> {
      a = Gemm(x, w, b)
      r = Relu(a)
      c = Gemm(r, w, b)
      y = Add(c, b)
    }""")
    expected = parse("""(float[N,8] x) => (float[N,8] y)
    <float[8,8] w, float[8] b, float[8] b__copy, float[8] b__copy__1> {
      a = Gemm(x, w, b)
      r = Relu(a)
      c = Gemm(r, w, b__copy)
      y = Add(c, b__copy__1)
    }""")
    check(before, expected)
    weights = normalized(before).weights
    np.testing.assert_array_equal(weights["b"].array(), weights["b__copy__1"].array())


def test_a_shared_quantised_vector_is_untied() -> None:
    """Two layers of a quantised model had equal biases."""
    text = """(float[N,4] x) => (float[N,3] y)
    <float[4,6] w1, float[6,6] w2, float[6,3] w3, int32[6] b, float s = {0.01}> {
      bias = DequantizeLinear(b, s)
      h = MatMul(x, w1) i = Add(h, bias) r = Relu(i) j = MatMul(r, w2) k = Add(j, bias) y = MatMul(k, w3)
    }"""
    expected = """(float[N,4] x) => (float[N,3] y)
    <float[4,6] w1, float[6,6] w2, float[6,3] w3, int32[6] b, float s = {0.01}, int32[6] b__copy, float s__copy = {0.01}> {
      bias = DequantizeLinear(b, s) bias__copy = DequantizeLinear(b__copy, s__copy)
      h = MatMul(x, w1) i = Add(h, bias) r = Relu(i) j = MatMul(r, w2) k = Add(j, bias__copy) y = MatMul(k, w3)
    }"""
    check(parse(text), parse(expected))
    assert len(analyze(parse(text)).coupling.groups) == 2


def test_what_nothing_reads_is_dropped() -> None:
    before = parse("(float[N,4] x) => (float[N,4] y) <float[4] c, float[4] d> { y = Add(x, c)\n z = Mul(x, d)\n q = Neg(z) }")
    check(before, parse("(float[N,4] x) => (float[N,4] y) <float[4] c> { y = Add(x, c) }"))


EQUAL = "(float[N,6,4] x) => (float[N,3,4] p, float[N,3,4] q) {{ p, q = Split<axis = 1{more}>(x) }}"


@pytest.mark.parametrize(
    ("opset", "more", "expected"),
    [
        (11, "", "{ p, q = Split<axis = 1, split = [3, 3]>(x) }"),
        (12, "", "{ p, q = Split<axis = 1, split = [3, 3]>(x) }"),
        (13, "", "<int64[2] x__split = {3, 3}> { p, q = Split<axis = 1>(x, x__split) }"),
        (18, ", num_outputs = 2", "<int64[2] x__split = {3, 3}> { p, q = Split<axis = 1>(x, x__split) }"),
    ],
)
def test_split_sizes_are_spelled(opset: int, more: str, expected: str) -> None:
    head = "(float[N,6,4] x) => (float[N,3,4] p, float[N,3,4] q)"
    check(parse(EQUAL.format(more=more), opset), parse(f"{head} {expected}", opset))


def test_an_uneven_last_part() -> None:
    head = "(float[N,7] x) => (float[N,3] p, float[N,3] q, float[N,1] r)"
    before = parse(f"{head} {{ p, q, r = Split<axis = 1, num_outputs = 3>(x) }}")
    check(before, parse(f"{head} <int64[3] x__split = {{3, 3, 1}}> {{ p, q, r = Split<axis = 1>(x, x__split) }}"))


@pytest.mark.parametrize("opset", [11, 13])
def test_a_split_along_a_dynamic_axis_stays(opset: int) -> None:
    text = "(float[N,6] x) => (float[M,6] p, float[M,6] q) { p, q = Split<axis = 0>(x) }"
    model = Normalize().run(Model.of(parse(text, opset))).model  # it does not run on three rows
    assert_same_graph(model, parse(text, opset))


def test_a_computed_reshape_copies_its_batch() -> None:
    before = parse(
        """(float[N,6,4,4] x) => (float[N,6,16] y) <int64 zero = {0}, int64[2] rest = {6, -1}, int64[1] first = {0}> {
      s = Shape(x)
      b = Gather(s, zero)
      n = Unsqueeze(b, first)
      to = Concat<axis = 0>(n, rest)
      y = Reshape(x, to)
    }""".replace("int64[1] rest", "int64[2] rest")
    )
    check(
        before, parse("(float[N,6,4,4] x) => (float[N,6,16] y) <int64[3] to__pinned = {0, 6, -1}> { y = Reshape(x, to__pinned) }")
    )


def test_one_dynamic_entry_that_is_no_copy_is_minus_one() -> None:
    before = parse("""(float[N,T,6] x) => (float[M,2,3] y)
    <int64 zero = {0}, int64[1] first = {0}, int64[2] rest = {2, 3}, int64 one = {1}> {
      s = Shape(x)
      n = Gather(s, zero)
      t = Gather(s, one)
      nt = Mul(n, t)
      u = Unsqueeze(nt, first)
      to = Concat<axis = 0>(u, rest)
      y = Reshape(x, to)
    }""")
    check(before, parse("(float[N,T,6] x) => (float[M,2,3] y) <int64[3] to__pinned = {-1, 2, 3}> { y = Reshape(x, to__pinned) }"))


def test_several_dynamic_entries_leave_the_static_ones_pinned() -> None:
    text = """(float[N,6,H,W] x) => (float[N,2,3,A,W] y)
    <int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] two = {2}, int64[1] three = {3}> {
      s = Shape(x)
      n = Gather(s, i0)
      h = Gather(s, i2)
      w = Gather(s, i3)
      a = Mul(h, two)
      b = Div(w, two)
      to = Concat<axis = 0>(n, two, three, a, b)
      y = Reshape(x, to)
    }"""
    expected = """(float[N,6,H,W] x) => (float[N,2,3,A,W] y)
    <int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] two = {2}, int64[1] three = {3},
     int64[1] two__copy = {2}, int64[1] two__copy__1 = {2},
     bool[5] to__known = {1, 1, 1, 1, 0}, int64[5] to__pinned = {0, 2, 3, -1, 0}> {
      s = Shape(x)
      n = Gather(s, i0)
      h = Gather(s, i2)
      w = Gather(s, i3)
      a = Mul(h, two)
      b = Div(w, two__copy)
      to = Concat<axis = 0>(n, two__copy__1, three, a, b)
      to__sizes = Where(to__known, to__pinned, to)
      y = Reshape(x, to__sizes)
    }"""
    check(parse(text), parse(expected))


def test_zeros_that_are_allowed_do_not_stand_for_copies() -> None:
    text = """(float[N,6,4] x) => (float[N,2,12] y) <int64 zero = {0}, int64[2] rest = {2, 12}, int64[1] first = {0}> {
      s = Shape(x)
      b = Gather(s, zero)
      n = Unsqueeze(b, first)
      to = Concat<axis = 0>(n, rest)
      y = Reshape<allowzero = 1>(x, to)
    }"""
    check(
        parse(text),
        parse("(float[N,6,4] x) => (float[N,2,12] y) <int64[3] to__pinned = {0, 2, 12}> { y = Reshape(x, to__pinned) }"),
    )


HEADS = """(float[N,T,8] x) => (float[N,T,8] y)
<float[8,24] w, float[8,8] u, int64 i0 = {0}, int64 i1 = {1}, int64[1] e = {0}, int64[3] qkv = {8, 8, 8},
 int64 two = {2}, int64[4] apart = {0, 0, 2, 4}, int64[1] heads = {2}, int64[1] width = {4}, int64[3] whole = {0, 0, 8}> {
  s = Shape(x)
  n = Gather(s, i0)
  t = Gather(s, i1)
  nh = Mul(n, two)
  n1 = Unsqueeze(n, e)
  t1 = Unsqueeze(t, e)
  nh1 = Unsqueeze(nh, e)
  m = MatMul(x, w)
  q, k, v = Split<axis = 2>(m, qkv)
  q4 = Reshape(q, apart)
  k4 = Reshape(k, apart)
  v4 = Reshape(v, apart)
  qt = Transpose<perm = [0,2,1,3]>(q4)
  kt = Transpose<perm = [0,2,3,1]>(k4)
  vt = Transpose<perm = [0,2,1,3]>(v4)
  three = Concat<axis = 0>(nh1, t1, width)
  turned = Concat<axis = 0>(nh1, width, t1)
  q3 = Reshape<allowzero = 1>(qt, three)
  k3 = Reshape<allowzero = 1>(kt, turned)
  v3 = Reshape<allowzero = 1>(vt, three)
  a = MatMul(q3, k3)
  p = Softmax<axis = 2>(a)
  c = MatMul(p, v3)
  z = Shape(c)
  z0 = Gather(z, i0)
  b = Div(z0, two)
  b1 = Unsqueeze(b, e)
  four = Concat<axis = 0>(b1, heads, t1, width)
  c4 = Reshape<allowzero = 1>(c, four)
  ct = Transpose<perm = [0,2,1,3]>(c4)
  o = Reshape(ct, whole)
  y = MatMul(o, u)
}"""
"""Heads are merged with the batch, and taken apart again, by numbers of heads that are written into the size arithmetic."""


def test_sizes_that_multiply_a_batch_by_heads_follow_the_heads() -> None:
    model = parse(HEADS)
    assert_same_values(normalized(model), Model.of(model))
    assert_same_graph(normalized(normalized(model).to_proto()), normalized(model).to_proto())
    heads, width = analyze(model).coupling.groups[0], analyze(model).coupling.groups[1:]
    assert heads.size == 2
    assert {group.size for group in width} == {4}
    found = analyze(model)
    check_law(found, {heads.id: [1]})
    check_law(found, {group.id: some(group.size) for group in found.coupling.groups})


def test_they_follow_the_heads_when_what_was_pruned_is_pruned_again() -> None:
    text = (
        HEADS.replace("float[8,24] w", "float[8,48] w")
        .replace("float[8,8] u", "float[16,8] u")
        .replace("{8, 8, 8}", "{16, 16, 16}")
    )
    text = text.replace("two = {2}", "two = {4}").replace("{0, 0, 2, 4}", "{0, 0, 4, 4}").replace("heads = {2}", "heads = {4}")
    model = parse(text.replace("{0, 0, 8}", "{0, 0, 16}"))
    for heads in (2, 1):
        result = prune(model, Recipe(target="channels=0.5", align="1"))
        assert not result.report.frozen
        assert next(group.kept for group in result.report.groups if group.size == 2 * heads) == heads
        model = result.model


def test_expand_and_resize_and_slice_sizes_are_pinned_where_they_are_static() -> None:
    before = parse("""(float[N,6,4,4] x) => (float[N,6,4,4] y) <int64[1] i1 = {1}, int64[1] zero = {0}, int64[1] one = {1}> {
      s = Shape(x)
      c = Gather(s, i1)
      y = Slice(x, zero, c, one)
    }""")
    expected = parse("""(float[N,6,4,4] x) => (float[N,6,4,4] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] c__pinned = {6}> {
      y = Slice(x, zero, c__pinned, one)
    }""")
    check(before, expected)


def test_a_size_that_becomes_a_number_is_pinned() -> None:
    """Attention divides by the root of a size that pruning changes: the number must stay."""
    before = parse("""(float[N,4,16] x) => (float[N,4,16] y) <int64 last = {2}> {
      s = Shape(x)
      d = Gather(s, last)
      f = Cast<to = 1>(d)
      r = Sqrt(f)
      y = Div(x, r)
    }""")
    expected = parse("""(float[N,4,16] x) => (float[N,4,16] y) <int64 d__pinned = {16}> {
      f = Cast<to = 1>(d__pinned)
      r = Sqrt(f)
      y = Div(x, r)
    }""")
    model = normalized(before)
    assert_same_graph(model, expected)
    assert_same_values(model, Model.of(before))


def test_initializers_that_old_models_list_as_inputs() -> None:
    before = parse("(float[N,4] x) => (float[N,3] y) <float[4,3] w> { y = MatMul(x, w) }")
    before.ir_version = 3
    before.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3]))
    expected = parse("(float[N,4] x) => (float[N,3] y) <float[4,3] w> { y = MatMul(x, w) }")
    model = normalized(before)
    assert_same_graph(model, expected)
    assert_same_values(model, Model.of(expected))


def test_local_functions_are_inlined() -> None:
    before = parse(
        """(float[N,4] x) => (float[N,4] y) <float[4,6] w, float[6,4] v> {
          h = MatMul(x, w)
          a = mine.act(h)
          y = MatMul(a, v)
        }
        <domain: "mine", opset_import: ["": 18]>
        act (u) => (v) { s = Sigmoid(u)  v = Mul(u, s) }""",
        domains=["mine"],
    )
    model = normalized(before)
    assert not model.proto.functions
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Sigmoid", "Mul", "MatMul"]
    assert_same_values(model, Model.of(before))


@pytest.mark.parametrize("name", NETS)
def test_the_nets_are_normal_already(name: str) -> None:
    model = parse(NETS[name])
    if name == "shuffle":
        assert_same_graph(normalized(model), model)
    assert_same_values(normalized(model), Model.of(model))


def test_it_establishes_the_shapes() -> None:
    assert Normalize().run(Model.of(parse(NETS["chain"]))).shapes.shapes["y"] == (2, 4, 8, 8)


def test_an_old_squeeze_of_every_unit_axis_spells_which() -> None:
    text = "(float[2,1,4,1] x) => (float[2,4] y) {{ y = Squeeze{}(x) }}"
    check(parse(text.format(""), 11), parse(text.format("<axes = [1,3]>"), 11))
