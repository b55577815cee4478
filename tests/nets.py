"""Small nets in ONNX text form, how they are read and compared, and the law on them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.plan import Plan
from onnxprune.axes.rules.registry import Reason
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_graph
from onnxprune.ir.weights import Array
from onnxprune.options.prune import Recipe
from onnxprune.passes import MaskChannels, PruneChannels
from onnxprune.passes.analysis import Analysis
from onnxprune.runtime import session
from onnxprune.shapes import candidates
from onnxprune.verify import law

HALF = Recipe(target="channels=0.5", align="1")


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


def with_defaults(model: ModelProto, *names: str) -> ModelProto:
    """The model with these of its weights as inputs, too, which callers may override."""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
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
    return PruneChannels().run(found, plan), MaskChannels().run(found, plan)


def check_law(found: Analysis, keep: Mapping[str, Sequence[int]]) -> None:
    """The pruned model equals the masked one, at every size, and is smaller; its interface is the original's."""
    pruned, masked = both(found, keep)
    outcome = law.compare(pruned, masked)
    assert outcome.ok, f"{dict(keep)}: {outcome.text}"
    assert outcome.runs == len(candidates.bindings(masked.inputs))
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
        session.inference_session(model.to_proto()).run(None, session.random_feeds(model.inputs, found, 0))
    except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return False
    return True


def assert_same_values(one: Model, other: Model) -> None:
    """Both compute the same on seeded inputs of sizes that ``other`` takes, to the last bit but for fused arithmetic."""
    taken = next(sizes for sizes in candidates.binding_candidates(other) if all(runs(other, found) for found in sizes))
    for number, found in enumerate(taken):
        feeds = session.random_feeds(other.inputs, found, number)
        results = [session.inference_session(model.to_proto(), optimize=False).run(None, feeds) for model in (one, other)]
        for got, expected in zip(*results, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def some(size: int, seed: int = 0) -> list[int]:
    """A seeded, uneven subset: neither empty nor everything, no prefix."""
    rng = np.random.default_rng([size, seed])
    return sorted(rng.choice(size, max(1, size * 5 // 8), replace=False).tolist())


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
"""Of each of the nets, as `describe` tells them."""
LAYER_NORM = """(float[N,T,8] x) => (float[N,T,4] y)
<float[8,6] w1, float[6] g, float[6] b, float[6,4] w2> {
  a = MatMul(x, w1)
  n = LayerNormalization(a, g, b)
  y = MatMul(n, w2)
}"""


def residual() -> ModelProto:
    """The residual net."""
    return parse(NETS["residual"])


def residual_file(folder: Path) -> Path:
    """The residual net in a file of a folder."""
    onnx.save(residual(), folder / "net.onnx")
    return folder / "net.onnx"
