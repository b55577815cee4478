"""Before and Expected: lists that loops read and append are tensors with one more axis."""

from __future__ import annotations

import pytest
from onnx import ModelProto

from nets import assert_same_graph, assert_same_values, check_law, describe, parse, some
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_node
from onnxprune.passes import Normalize


def normalized(model: ModelProto) -> Model:
    return Normalize().run(Model.of(model)).model


def check(before: ModelProto, expected: ModelProto) -> None:
    """Normalising gives the expected graph, which computes the same, and makes it again from that."""
    model = normalized(before)
    assert_same_graph(model, expected)
    assert_same_values(model, Model.of(before))
    assert_same_graph(normalized(model.to_proto()), expected)


SCRIPTED = """(float[T,N,5] x) => (float[A,B,3] y)
<float[5,8] wx, float[8,8] wh, float[8,3] wo, int64 one = {1}, int64[1] i1 = {1}, int64[1] eight = {8}, bool yes = {1}> {
  xs = SplitToSequence<axis = 0, keepdims = 0>(x, one)
  s = Shape(x)
  n = Gather(s, i1)
  hs = Concat<axis = 0>(n, eight)
  h0 = ConstantOfShape(hs)
  t = SequenceLength(xs)
  none = SequenceEmpty()
  hT, all = Loop (t, yes, h0, none) <
   body = step (int64 i, bool going, float[N,8] h, seq(float[N,8]) had) => (bool on, float[N,8] hn, seq(float[N,8]) have) {
    on = Identity(going)
    xt = SequenceAt(xs, i)
    a = MatMul(xt, wx)
    b = MatMul(h, wh)
    c = Add(a, b)
    hn = Tanh(c)
    have = SequenceInsert(had, hn)
  }>
  JOIN
}"""
STACK = "j = ConcatFromSequence<axis = AXIS, new_axis = 1>(all)  y = MatMul(j, wo)"


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_what_a_scripted_loop_appends_is_followed(axis: int) -> None:
    before = parse(SCRIPTED.replace("JOIN", STACK.replace("AXIS", str(axis))))
    model = normalized(before)
    assert_same_values(model, Model.of(before))
    assert not any("Sequence" in node.op_type for node in every_node(model.graph))
    found = analyze(before)
    assert describe(found.coupling) == ["wx:1 8: wx:1 wh:0 wh:1 wo:0"]
    for seed in range(3):
        check_law(found, {"wx:1": some(8, seed)})


def test_several_lists_and_what_else_reads_their_items() -> None:
    join = "j = ConcatFromSequence<axis = 1, new_axis = 1>(all)  k = ConcatFromSequence<axis = 0, new_axis = 1>(more)"
    join += "  l = Transpose<perm = [1,0,2]>(k)  m = Add(j, l)  y = MatMul(m, wo)"
    text = SCRIPTED.replace("JOIN", join).replace(
        "hT, all = Loop (t, yes, h0, none)", "all, hT, more = Loop (t, yes, none, h0, none)"
    )
    text = text.replace("float[N,8] h, seq(float[N,8]) had", "seq(float[N,8]) had, float[N,8] h, seq(float[N,8]) has")
    text = text.replace("float[N,8] hn, seq(float[N,8]) have", "seq(float[N,8]) have, float[N,8] hn, seq(float[N,8]) got")
    before = parse(text.replace("have = SequenceInsert(had, hn)", "have = SequenceInsert(had, hn) got = SequenceInsert(has, c)"))
    model = normalized(before)
    assert_same_values(model, Model.of(before))
    assert not any("Sequence" in node.op_type for node in every_node(model.graph))
    found = analyze(before)
    assert describe(found.coupling) == ["wx:1 8: wx:1 wh:0 wh:1 wo:0"]
    check_law(found, {"wx:1": [0, 3, 6]})


APPEND = """(float[N,T,4] x) => (float[N,A,4] y) <int64 i1 = {1}, int64[1] one = {1}> {
  s = Shape(x)
  t = Gather(s, i1)
  none = SequenceEmpty()
  all = Loop (t, "", none) <
   body = step (int64 i, bool going, seq(float[N,4]) had) => (bool on, seq(float[N,4]) have) {
    on = Identity(going)
    xt = Gather<axis = 1>(x, i)
    r = Relu(xt)
    ITEM
    have = SequenceInsert(had, item)
  }>
  y = JOIN
}"""
STACKED = """(float[N,T,4] x) => (float[N,A,4] y) <int64 i1 = {1}CONSTANTS> {
  s = Shape(x)
  t = Gather(s, i1)
  have__stacked = Loop (t, "") <body = step (int64 i, bool going) => (bool on, ITEMTYPE item__each) {
    on = Identity(going)
    xt = Gather<axis = 1>(x, i)
    r = Relu(xt)
    ITEM
    item__each = Identity(item)
  }>
  JOIN
}"""


def expected(item: str, shape: str, join: str, constants: str) -> ModelProto:
    text = STACKED.replace("ITEMTYPE", f"float{shape}").replace("CONSTANTS", constants)
    return parse(text.replace("ITEM", item).replace("JOIN", join))


def test_stacked_items() -> None:
    before = APPEND.replace("ITEM", "item = Neg(r)").replace("JOIN", "ConcatFromSequence<axis = 1, new_axis = 1>(all)")
    check(parse(before), expected("item = Neg(r)", "[?,4]", "y = Transpose<perm = [1,0,2]>(have__stacked)", ""))


def test_joined_items_of_one_position() -> None:
    before = APPEND.replace("ITEM", "item = Unsqueeze(r, one)").replace("JOIN", "ConcatFromSequence<axis = -2>(all)")
    join = "have__stacked__squeezed = Squeeze(have__stacked, have__stacked__axes)"
    join += "  y = Transpose<perm = [1,0,2]>(have__stacked__squeezed)"
    constants = ", int64[1] one = {1}, int64[1] have__stacked__axes = {2}"
    check(parse(before), expected("item = Unsqueeze(r, one)", "[?,1,4]", join, constants))


@pytest.mark.parametrize(
    ("item", "join"),
    [
        ("item = Neg(r)", "ConcatFromSequence<axis = 0>(all)"),  # joined along a batch
        ("d = Concat<axis = 0>(r, r)  item = Unsqueeze(d, one)", "ConcatFromSequence<axis = 0>(all)"),
    ],
)
def test_items_of_several_positions_stay_a_list(item: str, join: str) -> None:
    before = parse(APPEND.replace("ITEM", item).replace("JOIN", join).replace("[N,A,4] y", "[A,B,4] y").replace("[N,4])", "[])"))
    model = Normalize().run(Model.of(before)).model
    assert [node.op_type for node in model.graph.node][-1] == "ConcatFromSequence"


def test_a_list_that_something_else_reads_stays() -> None:
    text = APPEND.replace("ITEM", "item = Neg(r)").replace("JOIN", "ConcatFromSequence<axis = 1, new_axis = 1>(all)")
    text = text.replace("float[N,A,4] y)", "float[N,A,4] y, int64 z)").replace(
        "y = Concat", "z = SequenceLength(all)  y = Concat"
    )
    before = parse(text)
    model = normalized(before)
    assert any(node.op_type == "SequenceInsert" for node in every_node(model.graph))
    assert_same_values(model, Model.of(before))


def test_a_list_that_is_an_output_stays() -> None:
    text = APPEND.replace("ITEM", "item = Neg(r)").replace("JOIN", "ConcatFromSequence<axis = 1, new_axis = 1>(all)")
    before = parse(text.replace("float[N,A,4] y)", "float[N,A,4] y, seq(float[N,4]) all)"))
    assert any(node.op_type == "SequenceInsert" for node in every_node(normalized(before).graph))


def test_a_list_that_grows_at_its_front_stays() -> None:
    text = APPEND.replace("ITEM", "item = Neg(r)  at = Mul(i, i0)").replace("int64 i1 = {1}", "int64 i1 = {1}, int64 i0 = {0}")
    text = text.replace("JOIN", "ConcatFromSequence<axis = 1, new_axis = 1>(all)")
    before = parse(text.replace("SequenceInsert(had, item)", "SequenceInsert(had, item, at)"))
    model = normalized(before)
    assert any(node.op_type == "SequenceInsert" for node in every_node(model.graph))
    assert_same_values(model, Model.of(before))


def test_a_list_that_is_cut_unevenly_stays() -> None:
    text = """(float[6,4] x, int64 i) => (float[2,4] y) <int64 two = {2}> {
      xs = SplitToSequence<axis = 0>(x, two)
      y = SequenceAt(xs, i)
    }"""
    assert [node.op_type for node in normalized(parse(text)).graph.node] == ["SplitToSequence", "SequenceAt"]


def test_picking_from_a_cut_tensor() -> None:
    before = parse("""(float[N,6,4] x, int64 i) => (float[N,4] y, int64 n) {
      xs = SplitToSequence<axis = 1, keepdims = 0>(x)
      y = SequenceAt(xs, i)
      n = SequenceLength(xs)
    }""")
    after = parse("""(float[N,6,4] x, int64 i) => (float[N,4] y, int64 n) <int64 x__axis = {1}> {
      y = Gather<axis = 1>(x, i)
      x__sizes = Shape(x)
      n = Gather(x__sizes, x__axis)
    }""")
    check(before, after)
