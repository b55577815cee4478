"""Which positions go together, on small nets in ONNX text form; and the law on each of those nets.

The nets and the helpers that read them are shared with the other test files.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from onnxprune import runtime, shapes, verify
from onnxprune.api import Analysis, analyze
from onnxprune.axes import leaves
from onnxprune.coupling import Coupling
from onnxprune.model import Model
from onnxprune.node import every_graph
from onnxprune.passes import Couple, Facts, MaskChannels, Normalize, Pipeline, PruneChannels
from onnxprune.plan import Plan
from onnxprune.rules.registry import Reason
from onnxprune.weights import Array

# --- Shared helpers --------------------------------------------------------------------------------------------------


def parse(text: str, opset: int = 18, *, ir: int = 10, domains: Sequence[str] = ()) -> ModelProto:
    """A model from ONNX text; what a `<...>` declares and no node computes is a weight, filled with seeded values.

    Weights are scaled to keep activations of order one; those named var are positive.
    """
    imports = ", ".join([f'"": {opset}', *(f'"{domain}": 1' for domain in domains)])
    model = onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]> net {text}")
    for graph in every_graph(model.graph):
        fill(graph)
    onnx.checker.check_model(model)
    return model


def fill(graph: GraphProto) -> None:
    """Declared values that no node computes become weights."""
    computed = {name for node in graph.node for name in node.output}
    declared = list(graph.value_info)
    del graph.value_info[:]
    for value in declared:
        if value.name in computed:
            graph.value_info.append(value)
            continue
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        array = weights_of(value.name, shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        graph.initializer.append(numpy_helper.from_array(array, value.name))


def weights_of(name: str, shape: tuple[int, ...]) -> Array:
    """Seeded by the name, so that a net can be edited without changing the weights of the rest."""
    rng = np.random.default_rng(zlib.crc32(name.partition("__copy")[0].encode()))
    if "var" in name:
        return rng.uniform(0.5, 1.5, shape)
    inner = int(np.prod(shape[1:])) if len(shape) > 1 else 4
    return np.asarray(rng.standard_normal(shape) / np.sqrt(inner))


def describe(coupling: Coupling) -> list[str]:
    """One line a group: id, size, ~ where it is inexact, then its members."""
    return [
        f"{group.id} {group.size}{'' if group.exact else '~'}: {' '.join(f'{m.value}:{m.axis}' for m in group.members)}"
        for group in coupling.groups
    ]


def refusals(coupling: Coupling) -> dict[str, Reason]:
    """The reason of each axis that may not be pruned; the last one where an axis has several."""
    return {f"{refusal.value}:{refusal.axis}": refusal.reason for refusal in coupling.refusals}


def both(found: Analysis, keep: Mapping[str, Sequence[int]]) -> tuple[Model, Model]:
    """The pruned and the masked model of a plan."""
    plan = Plan({name: np.array(kept, np.int64) for name, kept in keep.items()})
    pruned = PruneChannels()(found.model, Facts(found.shapes, found.coupling, plan=plan))
    return pruned, MaskChannels()(found.model, Facts(found.shapes, found.coupling, plan=plan))


def check_law(found: Analysis, keep: Mapping[str, Sequence[int]]) -> None:
    """The pruned model equals the masked one, at every size, and is smaller; its interface is the original's."""
    pruned, masked = both(found, keep)
    outcome = verify.compare(pruned, masked)
    assert outcome.ok, f"{dict(keep)}: {outcome.text}"
    assert outcome.runs == len(shapes.bindings(masked.inputs))
    assert pruned.graph.input == found.model.graph.input
    assert pruned.graph.output == found.model.graph.output
    assert sum(w.size for w in pruned.weights.values()) < sum(w.size for w in found.model.weights.values())


def spell(node: NodeProto) -> str:
    """Everything that a node says but its name."""
    values = {a.name: spell_graph(a.g) if a.HasField("g") else helper.get_attribute_value(a) for a in node.attribute}
    attributes = sorted(f"{name} = {value}" for name, value in values.items())
    return f"{', '.join(node.output)} = {node.domain}:{node.op_type}<{', '.join(attributes)}>({', '.join(node.input)})"


def spell_graph(graph: GraphProto) -> str:
    """Everything that the body of a node says."""
    ends = [[str(value) for value in side] for side in (graph.input, graph.output, graph.value_info)]
    return f"{ends} {[tensor.name for tensor in graph.initializer]} {[spell(node) for node in graph.node]}"


def assert_same_graph(model: Model, expected: ModelProto) -> None:
    """Both have the same nodes, interface and recorded shapes, and weights of the same shapes; integers are equal in value."""
    assert [spell(node) for node in model.graph.node] == [spell(node) for node in expected.graph.node]
    for field in ("input", "output", "value_info"):
        assert list(getattr(model.graph, field)) == list(getattr(expected.graph, field))
    tensors = {tensor.name: tensor for tensor in expected.graph.initializer}
    assert {name: (w.shape, w.dtype) for name, w in model.weights.items()} == {
        name: (tuple(tensor.dims), tensor.data_type) for name, tensor in tensors.items()
    }
    for name, weight in model.weights.items():
        if not weight.is_float:
            np.testing.assert_array_equal(weight.array(), numpy_helper.to_array(tensors[name]), name)


def runs(model: Model, found: dict[str, tuple[int, ...]]) -> bool:
    try:
        runtime.session(model.to_proto()).run(None, runtime.random_feeds(model.inputs, found, 0))
    except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return False
    return True


def assert_same_values(one: Model, other: Model) -> None:
    """Both compute the same on seeded inputs of sizes that ``other`` takes, to the last bit but for fused arithmetic."""
    taken = next(sizes for sizes in shapes.trials(other.inputs) if all(runs(other, found) for found in sizes))
    for number, found in enumerate(taken):
        feeds = runtime.random_feeds(other.inputs, found, number)
        results = [runtime.session(model.to_proto(), optimize=False).run(None, feeds) for model in (one, other)]
        for got, expected in zip(*results, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def some(size: int, seed: int = 0) -> list[int]:
    """A seeded, uneven subset: neither empty nor everything, no prefix."""
    rng = np.random.default_rng([size, seed])
    return sorted(rng.choice(size, max(1, size * 5 // 8), replace=False).tolist())


# --- The nets --------------------------------------------------------------------------------------------------------
NETS: dict[str, str] = {}
NETS["chain"] = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,3,3] w1, float[8] b1, float[8] scale, float[8] bias, float[8] mean, float[8] var,
 float[6,8,3,3] w2, float[4,6,1,1] w3> {
  a = Conv<pads = [1,1,1,1]>(x, w1, b1)
  n = BatchNormalization(a, scale, bias, mean, var)
  r = Relu(n)
  c = Conv<pads = [1,1,1,1]>(r, w2)
  s = Sigmoid(c)
  y = Conv(s, w3)
}"""
NETS["residual"] = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,1,1] w0, float[6,8,3,3] w1, float[8,6,3,3] w2, float[8] b2, float[4,8,1,1] w3> {
  stem = Conv(x, w0)
  a = Conv<pads = [1,1,1,1]>(stem, w1)
  r = Relu(a)
  c = Conv<pads = [1,1,1,1]>(r, w2, b2)
  sum = Add(c, stem)
  y = Conv(sum, w3)
}"""
NETS["depthwise"] = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,1,1] w1, float[8,1,3,3] dw, float[8] db, float[4,8,1,1] w2> {
  a = Conv(x, w1)
  d = Conv<group = 8, pads = [1,1,1,1]>(a, dw, db)
  r = HardSwish(d)
  y = Conv(r, w2)
}"""
NETS["shuffle"] = """(float[N,4,4,4] x) => (float[N,4,4,4] y)
<float[12,4,1,1] w1, float[12,4,3,3] g1, float[12,6,1,1] g2, float[4,12,1,1] w2,
 int64[5] apart = {0,3,4,4,4}, int64[4] flat = {0,12,4,4}> {
  a = Conv(x, w1)
  b = Conv<group = 3, pads = [1,1,1,1]>(a, g1)
  r5 = Reshape(b, apart)
  t = Transpose<perm = [0,2,1,3,4]>(r5)
  s = Reshape(t, flat)
  c = Conv<group = 2>(s, g2)
  y = Conv(c, w2)
}"""
NETS["concat_split"] = """(float[N,3,4,4] x) => (float[N,4,4,4] y)
<float[3,3,1,1] wa, float[9,3,1,1] wb, int64[2] parts = {8,4}, float[4,8,1,1] wl, float[4,4,1,1] wr> {
  a = Conv(x, wa)
  b = Conv(x, wb)
  ab = Concat<axis = 1>(a, b)
  l, r = Split<axis = 1>(ab, parts)
  cl = Conv(l, wl)
  cr = Conv(r, wr)
  y = Add(cl, cr)
}"""
NETS["gate"] = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,3,3] w1, float[2,8,1,1] down, float[2] db, float[8,2,1,1] up, float[8] ub, float[4,8,1,1] w2> {
  a = Conv<pads = [1,1,1,1]>(x, w1)
  p = GlobalAveragePool(a)
  d = Conv(p, down, db)
  r = Relu(d)
  u = Conv(r, up, ub)
  g = Sigmoid(u)
  m = Mul(a, g)
  y = Conv(m, w2)
}"""
NETS["depth_to_space"] = """(float[N,3,4,4] x) => (float[N,4,8,8] y)
<float[12,3,1,1] w1, float[12] b1, float[4,3,1,1] w2> {
  a = Conv(x, w1, b1)
  d = DepthToSpace<blocksize = 2, mode = "CRD">(a)
  y = Conv(d, w2)
}"""
NETS["flatten"] = """(float[N,3,4,4] x) => (float[N,5] y)
<float[8,3,1,1] w1, float[128,6] w2, float[6] b2, float[5,6] w3> {
  a = Conv(x, w1)
  f = Flatten(a)
  h = Gemm(f, w2, b2)
  r = Relu(h)
  y = Gemm<transB = 1>(r, w3)
}"""
NETS["attention"] = """(float[N,T,8] x) => (float[N,T,8] y)
<float[8,36] wqkv, float[36] bqkv, int64[3] parts = {12,12,12}, int64[4] heads = {0,0,3,4}, int64[3] join = {0,0,12},
 float scale = {0.5}, float[12,8] wo> {
  p = MatMul(x, wqkv)
  qkv = Add(p, bqkv)
  q, k, v = Split<axis = 2>(qkv, parts)
  qr = Reshape(q, heads)
  qh = Transpose<perm = [0,2,1,3]>(qr)
  kr = Reshape(k, heads)
  kh = Transpose<perm = [0,2,3,1]>(kr)
  vr = Reshape(v, heads)
  vh = Transpose<perm = [0,2,1,3]>(vr)
  s = MatMul(qh, kh)
  ss = Mul(s, scale)
  w = Softmax<axis = -1>(ss)
  o = MatMul(w, vh)
  ot = Transpose<perm = [0,2,1,3]>(o)
  of = Reshape(ot, join)
  y = MatMul(of, wo)
}"""

GROUPS = {
    "chain": ["w1:0 8: w1:0 b1:0 scale:0 bias:0 mean:0 var:0 w2:1", "w2:0 6: w2:0 w3:1"],
    "residual": ["w0:0 8: w0:0 w1:1 w2:0 b2:0 w3:1", "w1:0 6: w1:0 w2:1"],
    "depthwise": ["w1:0 8: w1:0 dw:0 db:0 w2:1"],
    "shuffle": [  # a: (g=3 i=4) -> b: (g=3 (u=2 v=2)) -> shuffled ((u=2) (v=2 g=3)) = (g'=2 i'=6)
        "w1:0.0 3: w1:0 g1:0 g2:1",
        "w1:0.1 4: w1:0 g1:1",
        "g1:0.1 2: g1:0 g2:0 w2:1",
        "g1:0.2 2: g1:0 g2:1",
        "g2:0.1 6: g2:0 w2:1",
    ],
    "concat_split": ["wa:0 3: wa:0 wl:1", "wb:0.0 5: wb:0 wl:1", "wb:0.1 4: wb:0 wr:1"],  # 3 + 9 against 8 + 4
    "gate": ["w1:0 8: w1:0 down:1 up:0 ub:0 w2:1", "down:0 2: down:0 db:0 up:1"],
    "depth_to_space": ["w1:0.0 3: w1:0 b1:0 w2:1"],
    "flatten": ["w1:0 8: w1:0 w2:0", "w2:1 6: w2:1 b2:0 w3:1"],
    "attention": [  # heads; channels of queries and keys; channels of values
        "wqkv:1.0 3: wqkv:1 bqkv:0 wo:0",
        "wqkv:1.1 4: wqkv:1 bqkv:0",
        "wqkv:1.2 4: wqkv:1 bqkv:0 wo:0",
    ],
}

# --- Groups and refusals ---------------------------------------------------------------------------------------------


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
        ("nothing", ["w1:0", "w2:0"]),
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


LAYER_NORM = """(float[N,T,8] x) => (float[N,T,4] y)
<float[8,6] w1, float[6] g, float[6] b, float[6,4] w2> {
  a = MatMul(x, w1)
  n = LayerNormalization(a, g, b)
  y = MatMul(n, w2)
}"""


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
        _, facts = Pipeline([Normalize(), Couple(only=only)]).run(model)
        assert facts.coupling is not None
        assert len(facts.coupling.groups) == ids, only


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
