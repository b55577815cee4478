"""Which positions go together, on small nets in ONNX text form; and the law on each of those nets."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, helper

from nets import GROUPS, LAYER_NORM, NETS, check_law, describe, parse, refusals, some
from onnxprune.axes.factors import leaves
from onnxprune.axes.rules.registry import Reason
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize


@pytest.mark.parametrize("name", NETS)
def test_groups(name: str) -> None:
    assert describe(analyze(parse(NETS[name])).coupling) == GROUPS[name]


@pytest.mark.parametrize("name", NETS)
def test_law_for_each_group_alone_and_for_all_at_once(name: str) -> None:
    found = analyze(parse(NETS[name]))
    for seed, group in enumerate(found.coupling.groups):
        check_law(found, {group.id: some(group.size, seed)})
        check_law(found, {group.id: [group.size - 1]})
    check_law(found, {group.id: some(group.size, 7) for group in found.coupling.groups})
    check_law(found, {group.id: [0] for group in found.coupling.groups})


@pytest.mark.parametrize("name", NETS)
def test_every_channel_axis_of_every_weight_is_in_a_group_or_refused(name: str) -> None:
    model = parse(NETS[name])
    coupling = analyze(model).coupling
    told = {leaf for r in coupling.refusals for leaf in leaves(coupling.axes[r.value][r.axis])}
    told |= {group.factor for group in coupling.groups}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            for factor in coupling.axes[tensor.name][:2]:  # further axes are kernels
                assert {leaf for leaf in leaves(factor) if leaf.size > 1} <= told


@pytest.mark.parametrize("name", NETS)
def test_the_interface_is_refused_with_its_name(name: str) -> None:
    found = [r for r in analyze(parse(NETS[name])).coupling.refusals if r.reason is Reason.INTERFACE]
    assert {r.node for r in found} == {"x", "y"}
    assert {r.text.split(":")[0] for r in found} == {"graph input", "graph output"}


def test_positions_that_an_operator_orders_are_refused() -> None:
    coupling = analyze(parse(NETS["depth_to_space"])).coupling
    ordered = [r for r in coupling.refusals if r.reason is Reason.POSITION]
    assert [(r.value, r.axis, r.size, r.node) for r in ordered] == [("w1", 0, 2, "DepthToSpace(d)")] * 2


def test_a_group_that_a_convolution_takes_part_in_is_one_of_channels() -> None:
    model = parse("""(float[N,3,4,4] x) => (float[N,5] y) <float[8,3,1,1] w, float[8,12] up, float[12,5] down> {
      c = Conv(x, w)
      p = GlobalAveragePool(c)
      f = Flatten(p)
      h = MatMul(f, up)
      y = MatMul(h, down)
    }""")
    assert {group.id: group.kind for group in analyze(model).coupling.groups} == {"w:0": "channels", "up:1": "mlp"}


def test_a_refusal_reads_as_a_plan_spells_it() -> None:
    refusal = analyze(parse(NETS["chain"])).coupling.refusals[0]
    text = "graph input: the interface is a contract"
    assert refusal.to_dict() == {
        "node": "x",
        "axis": "w1:1",
        "axes": ["w1:1"],
        "size": 3,
        "reason": "interface",
        "text": text,
        "remedy": "",
    }


def test_a_refusal_names_every_axis_and_what_helps() -> None:
    (refusal,) = (r for r in analyze(parse(LAYER_NORM)).coupling.refusals if r.reason is Reason.MIXES)
    assert refusal.axes == ("w1:1", "g:0", "b:0", "w2:0")
    assert "--allow-inexact" in refusal.remedy
    model = parse(
        """(float[N,4] x, float[6,4] s) => (float[N,3] y) <float[4,6] w, float[6,3] v> {
      h = MatMul(x, w)
      n = my.Op(h)
      y = MatMul(n, v)
    }""",
        domains=["my"],
    )
    (refusal,) = (r for r in analyze(model).coupling.refusals if r.value == "w" and r.axis == 1)
    assert refusal.remedy == Reason.NO_RULE.remedy != ""


def test_a_form_may_have_a_remedy_of_its_own() -> None:
    model = parse("""(float[N,4,8,8] x) => (float[N,3,8,8] y)
    <float[6,4,1,1] w, float[6] s, float[6] b, float[6] m, float[6] var, float[3,6,1,1] v> {
      a = Conv(x, w)
      n, mm, vv = BatchNormalization<training_mode = 1>(a, s, b, m, var)
      y = Conv(n, v)
    }""")
    (refusal,) = (r for r in analyze(model).coupling.refusals if r.value == "w" and r.axis == 0)
    assert refusal.reason is Reason.UNSUPPORTED
    assert refusal.remedy == "export the model in evaluation mode"


def test_weights_that_only_a_body_reads_are_refused_by_name() -> None:
    model = parse("""(float[N,4] x, bool b) => (float[N,6] y) <float[4,6] w, float[4,6] v> {
      y = If (b) <
        then_branch = one () => (float[N,6] s) { s = MatMul(x, w) },
        else_branch = two () => (float[N,6] t) { t = MatMul(x, v) }
      >
    }""")
    assert {axis for r in analyze(model).coupling.refusals for axis in r.axes} == {"w:0", "w:1", "v:0", "v:1"}


def test_merged_equal_constants_are_untied() -> None:
    model = parse("""(float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[8,3,1,1] w1, float[8] zero, float[8,8,1,1] w2, float[4,8,1,1] w3> {
      a = Conv(x, w1, zero)
      r = Relu(a)
      c = Conv(r, w2, zero)
      y = Conv(c, w3)
    }""")
    assert describe(analyze(model).coupling) == ["w1:0 8: w1:0 zero:0 w2:1", "w2:0 8: w2:0 zero__copy:0 w3:1"]


def test_tied_weights_stay_tied() -> None:
    model = parse("""(float[N,8] x, float[N,8] z) => (float[N,4] y)
    <float[8,6] w, float[6,4] wy, float[6,4] wz> {
      a = MatMul(x, w)
      b = MatMul(z, w)
      ya = MatMul(a, wy)
      yb = MatMul(b, wz)
      y = Add(ya, yb)
    }""")
    found = analyze(model)
    assert describe(found.coupling) == ["w:1 6: w:1 wy:0 wz:0"]
    check_law(found, {"w:1": [0, 2, 5]})


def test_a_matrix_used_both_ways_round_couples_its_two_axes() -> None:
    model = parse("""(float[N,4] x) => (float[N,4] y)
    <float[4,6] win, float[6,6] w, float[6,4] wout> {
      a = MatMul(x, win)
      b = MatMul(a, w)
      c = Relu(b)
      d = MatMul(c, w)
      y = MatMul(d, wout)
    }""")
    found = analyze(model)
    assert describe(found.coupling) == ["win:1 6: win:1 w:0 w:1 wout:0"]
    check_law(found, {"win:1": [1, 2, 4]})


UNKNOWN = """(float[N,3,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] z)
<float[8,3,1,1] w1, float[6,8,1,1] w2, float[4,6,1,1] w3, float[4,8,1,1] wz> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  y = Conv(b, w3)
  f = my.domain.Foo(a)
  g = Identity(f)
  z = Conv(g, wz)
}"""


def unknown_op() -> ModelProto:
    """A net with an operator that nothing knows: the text form cannot spell its domain and its function's shape."""
    model = parse(UNKNOWN.replace("my.domain.Foo(a)", "Relu(a)"))
    (node,) = (node for node in model.graph.node if node.output[0] == "f")
    node.op_type, node.domain = "Foo", "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, ["N", 8, 8, 8]))
    return model


def test_an_unknown_operator_fixes_its_own_tensors_alone() -> None:
    coupling = analyze(unknown_op()).coupling
    assert describe(coupling) == ["w2:0 6: w2:0 w3:1"]
    assert refusals(coupling)["w1:0"] is Reason.NO_RULE
    (text,) = {r.text for r in coupling.refusals if r.value == "w1" and r.axis == 0}
    assert "no rule for my.domain::Foo" in text


@pytest.mark.parametrize(
    ("glob", "left"),
    [
        ("w1", ["w2:0"]),  # a tensor
        ("w*", []),
        ("r", ["w2:0"]),  # an activation
        ("Conv(s)", ["w1:0"]),  # a node
    ],
)
def test_protect(glob: str, left: list[str]) -> None:
    model = parse(NETS["chain"])
    for node in model.graph.node:
        node.name = f"{node.op_type}({node.input[0]})"
    coupling = analyze(model, protect=[glob]).coupling
    assert [group.id for group in coupling.groups] == left
    protected = {r.value for r in coupling.refusals if r.reason is Reason.PROTECTED and repr(glob) in r.text}
    assert bool(protected) == (len(left) < 2)


def test_what_a_normalisation_mixes_is_offered_on_request_only() -> None:
    model = parse(LAYER_NORM)
    coupling = analyze(model).coupling
    assert not coupling.groups
    assert refusals(coupling)["w1:1"] is Reason.MIXES
    assert describe(analyze(model, allow_inexact=True).coupling) == ["w1:1 6~: w1:1 g:0 b:0 w2:0"]


def test_a_sum_over_what_is_not_zero_is_refused() -> None:
    model = parse("""(float[N,4] x, float[N,4] z) => (float[N,N2] y)
    <float[4,6] w, float[4,6] v> {
      a = MatMul(x, w)
      s = Sigmoid(a)
      b = MatMul(z, v)
      t = Sigmoid(b)
      tt = Transpose(t)
      y = MatMul(s, tt)
    }""")
    found = analyze(model).coupling
    assert not found.groups
    assert refusals(found)["w:1"] is Reason.NOT_ZERO


def test_a_division_by_what_is_zero_is_refused() -> None:
    model = parse("""(float[N,4] x) => (float[N,3] y)
    <float[4,6] w, float[6] v, float[6,3] out> {
      a = MatMul(x, w)
      d = Div(a, v)
      y = MatMul(d, out)
    }""")
    found = analyze(model).coupling
    assert refusals(found)["w:1"] is Reason.NOT_ZERO


def test_an_unknown_shape_is_refused_and_the_rest_prunes() -> None:
    model = unknown_op()
    del model.graph.value_info[:]
    coupling = analyze(model).coupling
    assert describe(coupling) == ["w2:0 6: w2:0 w3:1"]
    assert refusals(coupling)["w1:0"] is Reason.NO_RULE


ENCODER = """(float[N,6,8] x) => (float[N,6,8] y)
<float[8,8] q, float[8,8] k, float[8,8] v, float[8,8] o, float[8] scale, float[8,16] up, float[16,8] down,
 int64[4] split = {0,6,2,4}, int64[3] join = {0,6,8}> {
  q1 = MatMul(x, q)
  k1 = MatMul(x, k)
  v1 = MatMul(x, v)
  q2 = Reshape(q1, split)
  k2 = Reshape(k1, split)
  v2 = Reshape(v1, split)
  q3 = Transpose<perm = [0,2,1,3]>(q2)
  k3 = Transpose<perm = [0,2,3,1]>(k2)
  v3 = Transpose<perm = [0,2,1,3]>(v2)
  s = MatMul(q3, k3)
  p = Softmax<axis = -1>(s)
  c = MatMul(p, v3)
  c1 = Transpose<perm = [0,2,1,3]>(c)
  c2 = Reshape(c1, join)
  a = MatMul(c2, o)
  n = LayerNormalization(a, scale)
  u = MatMul(n, up)
  r = Relu(u)
  y = MatMul(r, down)
}"""


def test_kinds_of_groups() -> None:
    found = analyze(parse(ENCODER), allow_inexact=True).coupling
    assert {group.id: group.kind for group in found.groups} == {
        "q:1.0": "heads",
        "q:1.1": "heads",
        "v:1.1": "heads",
        "o:1": "residual",
        "up:1": "mlp",
    }


def test_only_some_kinds() -> None:
    model = Model.of(parse(ENCODER))
    for only, ids in (((), 4), (("mlp",), 1), (("heads",), 3), (("channels",), 0)):
        assert len(Couple(only=only).run(Normalize().run(model)).coupling.groups) == ids, only


def test_the_weight_of_a_refused_node_is_refused() -> None:
    model = unknown_op()
    del model.graph.value_info[:]
    assert refusals(analyze(model).coupling)["wz:1"] is Reason.UNKNOWN_SHAPE


def test_half_precision_prunes_too() -> None:
    text = NETS["residual"].replace("float[", "float16[")
    found = analyze(parse(text))
    assert describe(found.coupling) == GROUPS["residual"]
    check_law(found, {group.id: some(group.size) for group in found.coupling.groups})


def test_a_window_that_moves_with_the_input_has_an_order() -> None:
    """Distances to positions are cut from a table by how long the input is; heads of it are pruned all the same."""
    found = analyze(
        parse("""(float[N,T,8] x) => (float[N,T,8] y)
        <float[8,6] w, float[6,64] table, int64[1] one = {1}, int64 i1 = {1}, int64[1] size = {64}, int64[1] e = {0},
         int64[1] last = {9223372036854775807}, float[6,8] u> {
          s = Shape(x)
          t = Gather(s, i1)
          u1 = Unsqueeze(t, e)
          start = Sub(size, u1)
          cut = Slice(table, start, last, one)
          turned = Transpose<perm = [1,0]>(cut)
          h = MatMul(x, w)
          b = Add(h, turned)
          y = MatMul(b, u)
        }""")
    )
    assert describe(found.coupling) == ["table:0 6: table:0 w:1 u:0"]
    check_law(found, {"table:0": some(6)})


def slimmed(*lists: str, source: int = 24, first: str = "Conv(x, w)", wide: int = 3) -> ModelProto:
    """Network slimming: each block reads listed channels of a residual stream."""
    declared, body = [f"float[{source},3,1,1] w"], [f"r0 = {first}"]
    for at, listed in enumerate(lists):
        count = len(listed.split(","))
        declared += [f"int64[{count}] list{at} = {{ {listed} }}", f"float[{source},{count},1,1] v{at}"]
        body += [
            f"p{at} = Gather<axis = 1>(r{at}, list{at})",
            f"q{at} = Sigmoid(p{at})",
            f"s{at} = Conv(q{at}, v{at})",
            f"r{at + 1} = Add(r{at}, s{at})",
        ]
    body.append(f"y = Conv(r{len(lists)}, out)")
    declared.append(f"float[2,{source},1,1] out")
    return parse(f"(float[N,{wide},4,4] x) => (float[N,2,4,4] y) <{', '.join(declared)}> {{ {chr(10).join(body)} }}")


EVEN = ", ".join(map(str, range(0, 24, 2)))
LISTS = {
    "one": ([EVEN], [12, 12]),
    "the same": ([EVEN, EVEN], [12, 12]),
    "two": ([EVEN, ", ".join(map(str, range(12)))], [6, 6, 6, 6]),
    "reordered and twice": (["3, 2, 1, 0, -1, 3, 2, 1"], [19, 2, 3]),
    "an order": ([", ".join(map(str, range(24))), EVEN], [12, 12]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_couples_what_it_names_with_its_source(name: str) -> None:
    lists, sizes = LISTS[name]
    found = analyze(slimmed(*lists))
    assert [group.size for group in found.coupling.groups] == sizes
    for seed, group in enumerate(found.coupling.groups):
        check_law(found, {group.id: some(group.size, seed)})
    check_law(found, {group.id: some(group.size, 7) for group in found.coupling.groups})


def test_what_lists_name_goes_alone_where_its_source_stays() -> None:
    """The source is an input, or is cut by many lists so that next to nothing of it goes together."""
    given = slimmed(EVEN, "1, 2, 3, 4", first="Identity(x)", wide=24)
    rng = np.random.default_rng(0)
    many = slimmed(*(", ".join(map(str, np.sort(rng.permutation(24)[:14]))) for _ in range(5)))
    for model, sizes in ((given, [12, 4]), (many, [14] * 5)):
        found = analyze(model)
        assert [(group.size, [m.axis for m in group.members]) for group in found.coupling.groups] == [(n, [1]) for n in sizes]
        for seed, group in enumerate(found.coupling.groups):
            check_law(found, {group.id: some(group.size, seed)})
        check_law(found, {group.id: [0] for group in found.coupling.groups})


def test_a_table_of_embeddings_and_a_computed_list_are_no_lists_of_channels() -> None:
    text = """(float[N,3,4,4] x, int64[3] i) => (float[N,2,4,4] y, float[N,3,4,4] z)
    <float[8,3,1,1] w, int64[10] list = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 0 }, float[2,10,1,1] v> {
      a = Conv(x, w)
      p = Gather<axis = 1>(a, list)
      y = Conv(p, v)
      z = Gather<axis = 1>(a, i)
    }"""
    assert not analyze(parse(text)).coupling.groups
