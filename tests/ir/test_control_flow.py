"""Axes through the bodies of If, Loop and Scan: what goes together, and the law, whichever branch is taken."""

from __future__ import annotations

import pytest
from onnx import ModelProto, NodeProto

from nets import assert_same_values, both, check_law, describe, parse, refusals, some
from onnxprune import Recipe, prune
from onnxprune.axes.rules.registry import Reason
from onnxprune.driver.prune import analyze
from onnxprune.ir.control_flow import Along, End, Phi, Trips, node_at, walk
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize

NETS: dict[str, str] = {}
NETS["branches"] = """(float[N,3,4,4] x, bool c) => (float[N,4,4,4] y)
<float[8,3,1,1] w1, float[4,6,1,1] w3, float[6,8,1,1] wb> {
  a = Conv(x, w1)
  r = Relu(a)
  e = If (c) <
    then_branch = yes () => (float[N,6,4,4] p) <float[10,8,3,3] w, float[10] b, float[6,10,1,1] v> {
      h = Conv<pads = [1,1,1,1]>(r, w, b)
      g = Relu(h)
      p = Conv(g, v)
    },
    else_branch = no () => (float[N,6,4,4] q) <float[7,8,1,1] w, float[6,7,1,1] v> {
      h = Conv(r, w)
      s = Sigmoid(h)
      t = Conv(s, v)
      u = Conv(r, wb)
      q = Add(t, u)
    }>
  y = Conv(e, w3)
}"""
NETS["constants"] = """(float[N,5] x, bool c) => (float[N,2] y)
<float[5,8] w1, float[8,2] w2> {
  a = MatMul(x, w1)
  b = If (c) <
    then_branch = yes () => (float[8] p) <float[8] k> { p = Identity(k) },
    else_branch = no () => (float[8] q) { q = Constant<value = float[8] {1,2,3,4,5,6,7,8}>() }>
  d = Add(a, b)
  y = MatMul(d, w2)
}"""
NETS["rnn"] = """(float[N,T,5] x) => (float[N,T,3] y, float[N,4] z)
<float[5,8] wx, float[8,8] wh, float[8] b, int64[1] i0 = {0}, int64 i1 = {1}, int64[1] eight = {8}, float[8,3] wo, float[8,4] wz,
 bool yes = {1}> {
  s = Shape(x)
  n = Gather(s, i0)
  t = Gather(s, i1)
  hs = Concat<axis = 0>(n, eight)
  h0 = ConstantOfShape(hs)
  h, ys = Loop (t, yes, h0) <body = step (int64 i, bool going, float[N,8] hin) => (bool on, float[N,8] hout, float[N,8] yt) {
    xt = Gather<axis = 1>(x, i)
    a = MatMul(xt, wx)
    r = MatMul(hin, wh)
    ar = Add(a, r)
    arb = Add(ar, b)
    hout = Tanh(arb)
    yt = Identity(hout)
    on = Identity(going)
  }>
  yn = Transpose<perm = [1,0,2]>(ys)
  y = MatMul(yn, wo)
  z = MatMul(h, wz)
}"""
NETS["large"] = NETS["rnn"].replace("8]", "96]").replace("[8,", "[96,").replace("{8}", "{96}")  # weights are handed over
NETS["refine"] = """(float[N,3,6,6] x, int64 n) => (float[N,2,6,6] y)
<float[8,3,1,1] w1, float[2,8,1,1] w2> {
  a = Conv(x, w1)
  h = Loop (n, "", a) <body = step (int64 i, bool going, float[N,8,6,6] hin) => (bool on, float[N,8,6,6] hout)
   <float[6,8,3,3] u, float[6] bu, float[8,6,1,1] v, float[8] bv, float limit = {4}> {
    c = Conv<pads = [1,1,1,1]>(hin, u, bu)
    r = Relu(c)
    d = Conv(r, v, bv)
    hout = Add(hin, d)
    f = Cast<to = 1>(i)
    on = Less(f, limit)
  }>
  y = Conv(h, w2)
}"""
NETS["first_state"] = """(float[N,T,5] x) => (float[N,T,3] y, float[N,4] z)
<float[5,8] wx, float[8,8] wh, int64 i1 = {1}, float[1,8] h0, float[8,3] wo, float[8,4] wz> {
  s = Shape(x)
  t = Gather(s, i1)
  h, ys = Loop (t, "", h0) <body = step (int64 i, bool going, float[M,8] hin) => (bool on, float[N,8] hout, float[N,8] yt) {
    xt = Gather<axis = 1>(x, i)
    a = MatMul(xt, wx)
    r = MatMul(hin, wh)
    ar = Add(a, r)
    hout = Tanh(ar)
    yt = Identity(hout)
    on = Identity(going)
  }>
  yn = Transpose<perm = [1,0,2]>(ys)
  y = MatMul(yn, wo)
  z = MatMul(h, wz)
}"""
NETS["lstm"] = """(float[N,T,5] x, float[N,T,5] other) => (float[N,3,T] y, float[N,2] z)
<float[5,32] wx, float[5,32] wk, float[8,32] wh, float[32] b, float[1,8] h00, float[1,8] c00, float[8,3] wo, float[8,2] wz,
 int64[1] i0 = {0}, int64[1] eight = {8}> {
  k = Transpose<perm = [1,0,2]>(other)
  s = Shape(x)
  n = Gather(s, i0)
  hs = Concat<axis = 0>(n, eight)
  h0 = Expand(h00, hs)
  c0 = Expand(c00, hs)
  hT, cT, ys = Scan <num_scan_inputs = 2, scan_input_axes = [1,0], scan_input_directions = [1,0], scan_output_axes = [-1],
   scan_output_directions = [1],
   body = step (float[N,8] h, float[N,8] c, float[N,5] xt, float[N,5] kt) => (float[N,8] hn, float[N,8] cn, float[N,8] yt)
   <int64[4] parts = {8,8,8,8}> {
    ax = MatMul(xt, wx)
    ak = MatMul(kt, wk)
    ah = MatMul(h, wh)
    axk = Add(ax, ak)
    a = Add(axk, ah)
    g = Add(a, b)
    i1, f1, o1, g1 = Split<axis = 1>(g, parts)
    i = Sigmoid(i1)
    f = Sigmoid(f1)
    o = Sigmoid(o1)
    u = Tanh(g1)
    fc = Mul(f, c)
    iu = Mul(i, u)
    cn = Add(fc, iu)
    ct = Tanh(cn)
    hn = Mul(o, ct)
    yt = Identity(hn)
  }> (h0, c0, x, k)
  yn = Transpose<perm = [0,2,1]>(ys)
  yo = MatMul(yn, wo)
  y = Transpose<perm = [0,2,1]>(yo)
  z = MatMul(hT, wz)
}"""
NETS["batched"] = """(float[N,T,5] x, float[N,8] start) => (float[N,T,3] y, float[N,2] z)
<float[5,8] wx, float[8,8] wh, float[8,3] wo, float[8,2] wz, float[8,8] w0> {
  h0 = MatMul(start, w0)
  hT, ys = Scan <num_scan_inputs = 1, body = step (float[8] h, float[5] xt) => (float[8] hn, float[8] yt) {
    a = MatMul(xt, wx)
    r = MatMul(h, wh)
    ar = Add(a, r)
    hn = Tanh(ar)
    yt = Identity(hn)
  }> ("", h0, x)
  y = MatMul(ys, wo)
  z = MatMul(hT, wz)
}"""
NETS["nested"] = """(float[N,5] x, int64 n) => (float[N,2] y)
<float[5,8] w1, float[8,2] w2, int64 two = {2}, int64 zero = {0}> {
  a = MatMul(x, w1)
  h = Loop (n, "", a) <body = step (int64 i, bool going, float[N,8] hin) => (bool on, float[N,8] hout) {
    on = Identity(going)
    m = Mod(i, two)
    even = Equal(m, zero)
    d = If (even) <
      then_branch = yes () => (float[N,8] p) <float[8,6] u, float[6,8] v> { b = MatMul(hin, u)  r = Relu(b)  p = MatMul(r, v) },
      else_branch = no () => (float[N,8] q) <float[8,4] u, float[4,8] v> {
        q = Loop (two, "", hin) <body = inner (int64 j, bool g, float[N,8] hin) => (bool o, float[N,8] h2) {
          o = Identity(g)  b = MatMul(hin, u)  r = Tanh(b)  h2 = MatMul(r, v) }>
      }>
    hout = Add(hin, d)
  }>
  y = MatMul(h, w2)
}"""
NETS["rows"] = """(float[N,3] x, bool c) => (float[M,2] y)
<float[3,8] w, float[8,2] v, float[8,6] a1, float[6,8] a2> {
  h = MatMul(x, w)
  e = If (c) <
    then_branch = yes () => (float[A,8] p) { p = Concat<axis = 0>(h, h) },
    else_branch = no () => (float[B,8] q) { i = MatMul(h, a1)  r = Relu(i)  q = MatMul(r, a2) }>
  y = MatMul(e, v)
}"""
NETS["cache"] = """(float[2,T,5] x) => (float[2,3] y, float[2,S,3] z)
<float[2,0,6] empty, float[5,6] wv, float[5,6] wq, float[5,4] wn, float[4,6] wm, int64[1] first = {0}, int64[1] one = {1},
 float[6,3] wo, int64 i1 = {1}> {
  s = Shape(x)
  t = Gather(s, i1)
  all, os = Loop (t, "", empty) <
   body = step (int64 i, bool going, float[2,P,6] past) => (bool on, float[2,Q,6] present, float[2,6] o) {
    on = Identity(going)
    xt = Gather<axis = 1>(x, i)
    v = MatMul(xt, wv)
    v1 = Unsqueeze(v, one)
    present = Concat<axis = 1>(past, v1)
    q = MatMul(xt, wq)
    q1 = Unsqueeze(q, one)
    k = Transpose<perm = [0,2,1]>(present)
    qk = MatMul(q1, k)
    p = Softmax<axis = -1>(qk)
    oo = MatMul(p, present)
    o1 = Squeeze(oo, one)
    n = MatMul(xt, wn)
    r = Relu(n)
    m = MatMul(r, wm)
    o = Add(o1, m)
  }>
  sum = ReduceSum<keepdims = 0>(os, first)
  y = MatMul(sum, wo)
  z = MatMul(all, wo)
}"""
NETS["layers"] = """(float[N,6] x) => (float[N,3] y)
<float[6,8] w0, float[4,8,12] up, float[4,12,8] down, float[4,12] b, float[8,3] wo> {
  h0 = MatMul(x, w0)
  hT = Scan <num_scan_inputs = 3, body = layer (float[N,8] h, float[8,12] u, float[12,8] d, float[12] c) => (float[N,8] hn) {
    a = MatMul(h, u)
    ac = Add(a, c)
    s = Sigmoid(ac)
    e = MatMul(s, d)
    hn = Add(h, e)
  }> (h0, up, down, b)
  y = MatMul(hT, wo)
}"""
NETS["picked_layers"] = """(float[N,6] x) => (float[N,3] y)
<float[6,8] w0, float[4,8,12] up, float[4,12,8] down, float[8,3] wo, int64 four = {4}> {
  h0 = MatMul(x, w0)
  hT = Loop (four, "", h0) <body = layer (int64 i, bool going, float[N,8] h) => (bool on, float[N,8] hn) {
    on = Identity(going)
    u = Gather<axis = 0>(up, i)
    d = Gather<axis = 0>(down, i)
    a = MatMul(h, u)
    r = Relu(a)
    e = MatMul(r, d)
    hn = Add(h, e)
  }>
  y = MatMul(hT, wo)
}"""
NETS["swapped"] = """(float[N,6] x, int64 n) => (float[N,3] y, float[N,2] z)
<float[6,8] w0, float[6,8] w1, float[8,3] wo, float[8,2] wz> {
  a0 = MatMul(x, w0)
  b0 = MatMul(x, w1)
  aT, bT = Loop (n, "", a0, b0) <
   body = step (int64 i, bool going, float[N,8] a, float[N,8] b) => (bool on, float[N,8] an, float[N,8] bn) {
    on = Identity(going)  an = Tanh(b)  bn = Relu(a) }>
  y = MatMul(aT, wo)
  z = MatMul(bT, wz)
}"""

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


def net(name: str) -> ModelProto:
    return parse(NETS[name], 8 if name == "batched" else 18)


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
    assert result.model.ByteSize() < net(name).ByteSize()


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
