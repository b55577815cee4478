"""Axes through the bodies of If, Loop and Scan: what goes together, and the law, whichever branch is taken."""

from __future__ import annotations

import pytest
from onnx import NodeProto

from control_flow_nets import NETS, net
from nets import assert_same_values, both, check_law, describe, parse, refusals, some
from onnxprune import Recipe, prune
from onnxprune.axes.rules.registry import Reason
from onnxprune.driver.prune import analyze
from onnxprune.ir.control_flow import Along, End, Phi, Trips, node_at, walk
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize

GROUPS = {
    "branches": [
        "w1:0 8: w1:0 w:1 w__1:1 wb:1",
        "w:0 10: w:0 b:0 v:1",
        "v:0 6: v:0 v__1:0 wb:0 w3:1",
        "w__1:0 7: w__1:0 v__1:1",
    ],
    "constants": ["w1:1 8: w1:1 k:0 q:0 w2:0"],
    "rnn": ["wx:1 8: wx:1 wh:0 wh:1 b:0 wo:0 wz:0"],
    "large": ["wx:1 96: wx:1 wh:0 wh:1 b:0 wo:0 wz:0"],
    "refine": ["w1:0 8: w1:0 u:1 v:0 bv:0 w2:1", "u:0 6: u:0 bu:0 v:1"],
    "first_state": ["h0:1 8: h0:1 wx:1 wh:0 wh:1 wo:0 wz:0"],
    "lstm": ["h00:1 8: h00:1 c00:1 wx:1 wk:1 wh:0 wh:1 b:0 wo:0 wz:0"],
    "batched": ["w0:1 8: w0:1 wx:1 wh:0 wh:1 wo:0 wz:0"],
    "nested": ["w1:1 8: w1:1 u:0 v:1 u__1:0 v__1:1 w2:0", "u:1 6: u:1 v:0", "u__1:1 4: u__1:1 v__1:0"],
    "rows": ["w:1 8: w:1 a1:0 a2:1 v:0", "a1:1 6: a1:1 a2:0"],
    "layers": ["w0:1 8: w0:1 up:1 down:2 wo:0", "up:2 12: up:2 down:1 b:1"],
    "picked_layers": ["w0:1 8: w0:1 up:1 down:2 wo:0", "up:2 12: up:2 down:1"],
    "swapped": ["w0:1 8: w0:1 w1:1 wo:0 wz:0"],
    "cache": ["empty:2 6: empty:2 wv:1 wq:1 wm:1 wo:0", "wn:1 4: wn:1 wm:0"],
}


@pytest.mark.parametrize("name", NETS)
def test_groups(name: str) -> None:
    assert describe(analyze(net(name)).coupling) == GROUPS[name]


@pytest.mark.parametrize("name", NETS)
def test_law_for_each_group_alone_and_for_all_at_once(name: str) -> None:
    found = analyze(net(name))
    for seed, group in enumerate(found.coupling.groups):
        check_law(found, {group.id: some(group.size, seed)})
        check_law(found, {group.id: [group.size - 1]})
    check_law(found, {group.id: some(group.size, 7) for group in found.coupling.groups})
    check_law(found, {group.id: [0] for group in found.coupling.groups})


@pytest.mark.parametrize("name", NETS)
def test_pruned_and_proven_from_end_to_end(name: str) -> None:
    result = prune(net(name), Recipe(target="channels=0.5", align="1", criterion="random"))
    check = result.report.verification
    assert check is not None
    assert check.ok
    assert not result.report.frozen
    groups = analyze(net(name)).coupling.groups
    assert sum(group.kept for group in result.report.groups) <= sum(group.size for group in groups) * 0.55
    assert result.report.drift is not None  # the written model runs beside the original
    assert result.model.graph.ByteSize() < net(name).graph.ByteSize()


@pytest.mark.parametrize("name", NETS)
def test_normalising_computes_the_same(name: str) -> None:
    before = net(name)
    assert_same_values(Normalize().run(Model.of(before)).model, Model.of(before))


def test_a_weight_that_a_scan_takes_by_layers_is_a_weight() -> None:
    """A product with it is no meeting of activations, which would make heads of its width."""
    assert [group.kind for group in analyze(net("layers")).coupling.groups] == ["mlp", "mlp"]


def test_weights_in_bodies_are_cut() -> None:
    pruned, _ = both(analyze(net("nested")), {"w1:1": [0, 3, 5], "u:1": [1, 4], "u__1:1": [2]})
    shapes = {name: weight.shape for name, weight in pruned.weights.items() if weight.is_float}
    expected = {"w1": (5, 3), "u": (3, 2), "v": (2, 3), "u__1": (3, 1), "v__1": (1, 3), "w2": (3, 2)}
    assert shapes == expected


def test_shapes_recorded_in_bodies_follow() -> None:
    pruned, _ = both(analyze(net("branches")), {"v:0": [0, 5], "w1:0": [1, 2, 3]})
    (branch,) = (node for node in pruned.graph.node if node.op_type == "If")
    for attribute in branch.attribute:
        dims = attribute.g.output[0].type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 2, 4, 4]


INSIDE = """(float[N,8,4,4] x, bool c, int64 n) => (float[N,4,4,4] y)
<float[12,8,1,1] w1, float[4,12,1,1] w2> {
  a = Conv(x, w1)
  b = If (c) <
    then_branch = yes () => (float[N,12,4,4] p) <float[12,1,3,3] d, float[12,4,3,3] g> {
      e = Conv<group = 12, pads = [1,1,1,1]>(a, d)
      p = Conv<group = 3, pads = [1,1,1,1]>(e, g)
    },
    else_branch = no () => (float[N,12,4,4] q) {
      q = Loop (n, "", a) <body = step (int64 i, bool going, float[N,12,4,4] h) => (bool on, float[N,12,4,4] r)
      <float[12,1,1,1] f, float[6,12,1,1] k, int64[2] parts = {4,8}, float[12,6,1,1] m> {
        on = Identity(going)
        s = Conv<group = 12>(h, f)
        t = Conv(s, k)
        u = Relu(t)
        v = Conv(u, m)
        l, o = Split<axis = 1>(v, parts)
        r = Concat<axis = 1>(l, o)
      }>
    }>
  y = Conv(b, w2)
}"""


def test_attributes_and_sizes_in_bodies_follow() -> None:
    found = analyze(parse(INSIDE))
    sizes = {group.id: group.size for group in found.coupling.groups}
    for seed in range(3):
        keep = {name: some(size, seed) for name, size in sizes.items()}
        check_law(found, keep)
    pruned, _ = both(found, keep)
    inner = {node.output[0]: node for _, node in walk(pruned.graph, 18) if isinstance(node, NodeProto)}
    width = pruned.weights["w2"].shape[1]
    assert width < 12
    groups = {name: next(a.i for a in inner[name].attribute if a.name == "group") for name in ("e", "p", "s")}
    assert groups["e"] == groups["s"] == width
    assert pruned.weights[inner["l"].input[1]].array().sum() == width


def test_places_lead_to_their_nodes() -> None:
    found = analyze(parse(INSIDE))
    for node in found.coupling.nodes:
        proto = node_at(found.model.graph, (node.index, *node.inside))
        if node.view.op in {"If", "Loop"}:
            assert (proto.op_type, found.model.graph.node[node.index].op_type) == (node.view.op, "If")
        else:
            assert list(proto.output) == list(node.view.outputs)
    assert {len(node.inside) for node in found.coupling.nodes} == {0, 2, 4}


def test_a_graph_without_control_flow_is_its_nodes() -> None:
    model = parse("(float[N,4] x) => (float[N,4] y) { a = Relu(x)  y = Neg(a) }")
    assert [(path, getattr(node, "op_type", None)) for path, node in walk(model.graph, 18)] == [((0,), "Relu"), ((1,), "Neg")]


def phis(name: str) -> dict[str, list[Phi]]:
    """The phis of a net by what they make."""
    found: dict[str, list[Phi]] = {}
    model = net(name)
    for _, step in walk(model.graph, model.opset_import[0].version):
        if isinstance(step, Phi):
            found.setdefault(step.target.value, []).append(step)
    return found


def test_what_a_loop_passes_on() -> None:
    found = phis("refine")
    assert [(phi.sources, phi.back) for phi in found["hin"]] == [((End("a"),), False), ((End("hout"),), True)]
    assert [(phi.sources, phi.deciding) for phi in found["h"]] == [((End("hin"),), ("n", "on"))]
    assert [phi.sources for phi in found["going"]] == [(), (End("on"),)]
    (stacked,) = phis("rnn")["ys"]
    assert (stacked.target, stacked.sizes) == (End("ys", (0,)), (Trips("t", ("yes",)),))  # the condition is never changed


def test_what_a_scan_passes_on() -> None:
    found = phis("lstm")
    assert [phi.sources for phi in found["xt"]] == [(End("x", (1,)),)]
    assert [phi.sources for phi in found["kt"]] == [(End("k", (0,)),)]
    (stacked,) = found["ys"]
    assert (stacked.target, stacked.sizes) == (End("ys", (-1,)), (Along("k", 0),))
    batched = phis("batched")
    assert [phi.sources for phi in batched["h"]] == [(End("h0", (0,)),), (End("hn"),)]
    assert batched["xt"][0].sources == (End("x", (0, 1)),)
    assert batched["ys"][0].sizes == (Along("x", 0), Along("x", 1))


def test_what_if_passes_on() -> None:
    (phi,) = phis("branches")["e"]
    assert (phi.sources, phi.deciding) == ((End("p"), End("q")), ("c",))


REFUSED = """(float[N,4] x, bool c) => (float[N,3] y)
<float[4,8] w1, float[8,3] w2, float[8,6] u, float[6,8] v> {
  a = MatMul(x, w1)
  b = If (c) <then_branch = yes () => (float[N,8] p) { p = BODY }, else_branch = no () => (float[N,8] q) { q = Tanh(a) }>
  d = MatMul(b, u)
  e = MatMul(d, v)
  y = MatMul(e, w2)
}"""


def test_what_one_branch_fixes_is_fixed_in_the_other() -> None:
    found = analyze(parse(REFUSED.replace("BODY", "Softmax(a)"))).coupling
    assert refusals(found)["w1:1"] is Reason.MIXES
    assert describe(found) == ["u:1 6: u:1 v:0", "v:1 8: v:1 w2:0"]
    assert "w1:1 8: w1:1 u:0" in describe(analyze(parse(REFUSED.replace("BODY", "Relu(a)"))).coupling)


def test_protecting_a_node_in_a_body() -> None:
    model = parse(NETS["nested"])
    found = analyze(model, protect=["u"]).coupling
    assert [group.id for group in found.groups] == ["u__1:1"]
    assert refusals(found)["u:1"] is Reason.PROTECTED


MAPPED = """(float[N,4] x) => (float[N,3] y)
<float[4,8] w1, float[8,8] w, float[8,6] u, float[6,3] w2> {
  a = MatMul(x, w1)
  s = SequenceConstruct(a)
  m = SequenceMap (s) <body = each (float[N,8] one) => (float[N,8] other) { other = MatMul(one, w) }>
  i = Constant<value = int64 {0}>()
  b = SequenceAt(m, i)
  d = MatMul(b, u)
  e = Relu(d)
  y = MatMul(e, w2)
}"""


def test_a_body_that_is_not_followed_is_refused_with_its_reason() -> None:
    found = analyze(parse(MAPPED)).coupling
    assert describe(found) == ["u:1 6: u:1 w2:0"]
    (refusal,) = (r for r in found.refusals if (r.value, r.axis) == ("w", 0))
    assert refusal.reason is Reason.CONTROL_FLOW
    assert "is read inside the body of SequenceMap" in refusal.text
    assert refusals(found)["w1:1"] is Reason.UNKNOWN_SHAPE  # of the list
