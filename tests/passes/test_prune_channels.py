"""Before and Expected: constants are cut, and every size that the graph spells follows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from nets import NETS, assert_same_graph, both, parse
from onnxprune.axes.plan import Plan
from onnxprune.driver.prune import analyze
from onnxprune.errors import PlanError
from onnxprune.ir.model import Model
from onnxprune.passes import MaskChannels, PruneChannels
from onnxprune.verify.law import compare


def check(before: ModelProto, keep: dict[str, list[int]], expected: ModelProto) -> Model:
    """Cutting gives the expected graph, which computes what the masked one computes."""
    found = analyze(before)
    data = found.model.to_proto().SerializeToString(deterministic=True)
    pruned, masked = both(found, keep)
    assert found.model.to_proto().SerializeToString(deterministic=True) == data
    assert_same_graph(pruned, expected)
    outcome = compare(pruned, masked)
    assert outcome.ok, outcome.text
    return pruned


def test_constants_are_sliced() -> None:
    before = parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[8,3,1,1] w, float[8] b, float[4,8,1,1] v> {
      a = Conv<group = 1>(x, w, b)
      y = Conv<group = 1>(a, v)
    }""")
    expected = parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[3,3,1,1] w, float[3] b, float[4,3,1,1] v> {
      a = Conv<group = 1>(x, w, b)
      y = Conv<group = 1>(a, v)
    }""")
    pruned = check(before, {"w:0": [1, 4, 5]}, expected)
    original = Model.of(before).weights
    np.testing.assert_array_equal(pruned.weights["w"].array(), original["w"].array()[[1, 4, 5]])
    np.testing.assert_array_equal(pruned.weights["b"].array(), original["b"].array()[[1, 4, 5]])
    np.testing.assert_array_equal(pruned.weights["v"].array(), original["v"].array()[:, [1, 4, 5]])


def test_the_group_of_a_depthwise_convolution_follows() -> None:
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[{c},3,1,1] w, float[{c},1,3,3] d, float[4,{c},1,1] v> {{
      a = Conv<group = 1>(x, w)
      b = Conv<group = {c}, pads = [1,1,1,1]>(a, d)
      y = Conv<group = 1>(b, v)
    }}"""
    check(parse(text.format(c=8)), {"w:0": [0, 2, 3, 6, 7]}, parse(text.format(c=5)))


def test_groups_of_a_grouped_convolution_go_whole_or_lose_the_same_channels() -> None:
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y)
    <float[{a},3,1,1] w, float[{o},{i},1,1] g, float[4,{o},1,1] v> {{
      a = Conv<group = 1>(x, w)
      b = Conv<group = {n}>(a, g)
      y = Conv<group = 1>(b, v)
    }}"""
    before = parse(text.format(a=12, o=9, i=4, n=3))
    check(before, {"w:0.0": [0, 2]}, parse(text.format(a=8, o=6, i=4, n=2)))
    check(before, {"w:0.1": [1]}, parse(text.format(a=3, o=9, i=1, n=3)))
    check(before, {"g:0.1": [0, 2]}, parse(text.format(a=12, o=6, i=4, n=3)))


def test_num_groups_of_a_group_normalisation_follows() -> None:
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y)
    <float[{c},3,1,1] w, float[{c}] s, float[{c}] b, float[4,{c},1,1] v> {{
      a = Conv<group = 1>(x, w)
      n = GroupNormalization<num_groups = {g}>(a, s, b)
      y = Conv<group = 1>(n, v)
    }}"""
    check(parse(text.format(c=12, g=4), 21), {"w:0.0": [0, 3]}, parse(text.format(c=6, g=2), 21))


@pytest.mark.parametrize("opset", [11, 13])
def test_split_and_slice_and_reshape_sizes_follow(opset: int) -> None:
    if opset < 13:
        head, split = "", "Split<axis = 1, split = [{l}, {r}]>(a)"
    else:
        head, split = "int64[2] parts = {{{l}, {r}}},", "Split<axis = 1>(a, parts)"
    text = f"""(float[N,3,4,4] x) => (float[N,4] y)
    <{head} float[{{a}},3,1,1] w, float[{{l}},{{r}},1,1] v,
     int64[1] from = {{{{0}}}}, int64[1] to = {{{{{{m}}}}}}, int64[1] axis = {{{{1}}}}, int64[2] flat = {{{{0, {{f}}}}}},
     float[{{f}},4] out> {{{{
      a = Conv<group = 1>(x, w)
      l, r = {split}
      c = Conv<group = 1>(r, v)
      m = Add(c, l)
      s = Slice(m, from, to, axis)
      t = Reshape(s, flat)
      y = MatMul(t, out)
    }}}}"""
    before = parse(text.format(a=10, l=6, r=4, m=3, f=48), opset)
    found = analyze(before)
    sizes = {group.id: group.size for group in found.coupling.groups}
    assert sorted(sizes.values()) == [3, 3, 4]  # what the slice takes, what it leaves, the right part
    first, second = (name for name, size in sizes.items() if size == 3)
    (right,) = (name for name, size in sizes.items() if size == 4)
    keep = {first: [0, 2], second: [1], right: [0, 2, 3]}
    check(before, keep, parse(text.format(a=6, l=3, r=3, m=2, f=32), opset))


def test_channels_that_a_pad_adds_may_go_too() -> None:
    text = """(float[N,3,4,4] x) => (float[N,2,4,4] y)
    <float[{c},3,1,1] w, int64[8] pads = {{0,{p},0,0,0,{q},0,0}}, float[2,{all},1,1] v> {{
      a = Conv<group = 1>(x, w)
      d = Pad(a, pads)
      y = Conv<group = 1>(d, v)
    }}"""
    before = parse(text.format(c=6, p=2, q=3, all=11))
    keep = {"w:0": [1, 2, 5], "v:1.0": [0], "v:1.2": [0, 2]}
    assert {group.id for group in analyze(before).coupling.groups} == set(keep)
    check(before, keep, parse(text.format(c=3, p=1, q=2, all=6)))


def test_a_pinned_entry_beside_computed_ones_follows() -> None:
    before = parse("""(float[N,3,H,W] x) => (float[N,A,B] y)
    <float[6,3,1,1] w, int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] one = {1}, int64[1] c = {6},
     float[1,6,1,1] v> {
      a = Conv<group = 1>(x, w)
      s = Shape(a)
      n = Gather(s, i0)
      h = Gather(s, i2)
      p = Gather(s, i3)
      to = Concat<axis = 0>(n, c, h, p)
      e = Expand(v, to)
      m = Mul(a, e)
      sum = ReduceSum<keepdims = 0>(m, one)
      y = Neg(sum)
    }""")
    pruned, masked = both(analyze(before), {"w:0": [0, 4]})
    assert compare(pruned, masked).ok
    (where,) = (node for node in pruned.graph.node if node.op_type == "Where")
    assert pruned.weights[where.input[0]].array().tolist() == [False, True, False, False]
    assert pruned.weights[where.input[1]].array()[1] == 2


def test_recorded_shapes_follow() -> None:
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[{c},3,1,1] w, float[4,{c},1,1] v, float[N,{c},4,4] a> {{
      a = Conv<group = 1>(x, w)
      y = Conv<group = 1>(a, v)
    }}"""
    pruned = check(parse(text.format(c=8)), {"w:0": [0, 7]}, parse(text.format(c=2)))
    dims = pruned.graph.value_info[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 2, 4, 4]


def test_attributes_that_do_not_change_are_not_written() -> None:
    found = analyze(parse(NETS["residual"]))
    pruned, _ = both(found, {"w1:0": [0, 1]})
    assert [node.attribute for node in pruned.graph.node] == [node.attribute for node in found.model.graph.node]


def test_an_empty_plan_changes_nothing() -> None:
    found = analyze(parse(NETS["residual"]))
    assert PruneChannels().run(found, Plan()) is found.model


def test_a_plan_for_another_model() -> None:
    found = analyze(parse(NETS["residual"]))
    with pytest.raises(PlanError, match="no prunable group of this model"):
        PruneChannels().run(found, Plan({"elsewhere:0": np.array([0])}))


def test_a_list_of_channels_is_renumbered() -> None:
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y)
    <float[{a},3,1,1] w, float[{a}] b, int64[{n}] list = {{ {list} }}, float[4,{n},1,1] v> {{
      a = Conv(x, w, b)
      p = Gather<axis = 1>(a, list)
      q = Relu(p)
      y = Conv(q, v)
    }}"""
    before = parse(text.format(a=8, n=5, list="7, 0, -5, 2, 6"))
    expected = parse(text.format(a=4, n=3, list="0, 1, 3"))
    check(before, {"w:0.0": [2], "w:0.1": [0, 2, 3]}, expected)  # 5 of 1, 4, 5, which the list has not; 0, 3, 6 of the others


@pytest.mark.parametrize(("end", "first"), [(12, 0), (2**31 - 1, 0), (-1, 0), (2**31 - 1, 1)])
def test_what_a_step_leaves_goes_with_what_it_takes(end: int, first: int) -> None:
    """Of gates and rotary embeddings whose halves alternate, each position goes with its neighbour."""
    model = parse(f"""(float[N,8] x) => (float[N,4] y)
    <float[8,12] w, int64[1] first = {{{first}}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] end = {{{end}}},
     float[6,4] v> {{
      h = MatMul(x, w)
      p = Slice(h, first, end, one, two)
      y = MatMul(p, v)
    }}""")
    analysis = analyze(model)
    (group,) = analysis.coupling.groups
    assert group.size == 6
    plan = Plan({group.id: np.array([0, 2, 5])})
    pruned = PruneChannels().run(analysis, plan)
    assert pruned.weights["w"].shape == (8, 6)
    assert pruned.weights["v"].shape == (3, 4)
    assert compare(pruned, MaskChannels().run(analysis, plan)).ok
