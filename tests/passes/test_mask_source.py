"""Zeros in the file itself: in its own constants, for the readers that lose something, and nothing else changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from nets import NETS, parse, some
from onnxprune.axes.plan import Plan
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.passes import MaskChannels, MaskSource, PruneChannels
from onnxprune.passes.mask_source import MaskedSource
from onnxprune.verify.law import compare, unchanged


def masked(model: ModelProto, keep: int = 0) -> MaskedSource:
    """The file with zeros where every group loses some positions; equal to what is masked after normalising it."""
    found = analyze(model)
    plan = Plan({group.id: np.array(some(group.size)) for group in found.coupling.groups[keep:]})
    result = MaskSource().run(Model.of(model), found, plan)
    assert compare(MaskChannels().run(found, plan), result.model).ok or result.missing
    return result


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_masked_in_its_own_file(name: str) -> None:
    assert not masked(parse(NETS[name])).missing


def test_nothing_else_is_changed() -> None:
    """Nodes, attributes, constants that lose nothing, dead nodes: all is there."""
    text = """(float[N,4] x) => (float[N,4] y) <float[4,8] w1, float[8,4] w2, float[3] unread> {
      zero = Constant<value_float = 0.0>()
      a = MatMul(x, w1)
      dead = Add(a, zero)
      b = Relu(a)
      y = MatMul(b, w2)
    }"""
    source = Model.of(parse(text))
    result = masked(parse(text)).model
    assert [node.op_type for node in result.graph.node] == [node.op_type for node in source.graph.node]
    assert list(result.weights) == list(source.weights)
    assert [list(node.input) for node in result.graph.node] == [
        [],
        ["x", "w1"],
        ["a", "zero"],
        ["a"],
        ["b", "w2"],
    ]
    assert np.array_equal(result.weights["w1"].array()[:, some(8)], source.weights["w1"].array()[:, some(8)])
    assert not np.delete(result.weights["w1"].array(), some(8), axis=1).any()


def test_a_shared_constant_is_zeroed_for_one_reader_alone() -> None:
    """Exporters merge equal biases; the layer that is pruned loses some of its own, an output nothing."""
    text = """(float[N,4] x, float[N,8] o) => (float[N,8] z, float[N,4] y) <float[4,8] w, float[8] b, float[8,4] v> {
      bias = Identity(b)
      z = Add(o, bias)
      a = MatMul(x, w)
      k = Add(a, bias)
      r = Relu(k)
      y = MatMul(r, v)
    }"""
    result = masked(parse(text)).model
    nodes = {node.output[0]: list(node.input) for node in result.graph.node}
    assert nodes["z"] == ["o", "bias"]
    bias = result.weights[nodes["k"][1]].array()
    assert bias[some(8)].all()
    assert not np.delete(bias, some(8)).any()


def test_zeros_that_are_there_are_not_stored_again() -> None:
    """Exporters share one vector of zeros between all layers without a bias, whatever these lose."""
    text = """(float[N,4] x) => (float[N,4] y)
    <float[4,8] w1, float[8,8] w2, float[8] b = {0, 0, 0, 0, 0, 0, 0, 0}, float[8,4] w3> {
      a = Gemm(x, w1, b)
      r = Relu(a)
      c = Gemm(r, w2, b)
      s = Relu(c)
      y = MatMul(s, w3)
    }"""
    source = Model.of(parse(text))
    result = masked(parse(text)).model
    assert list(result.weights) == list(source.weights)
    assert result.to_proto().ByteSize() == source.to_proto().ByteSize()


def test_constants_in_bodies_give_their_names_to_what_takes_their_places() -> None:
    text = """(float[N,4] x, bool c) => (float[N,4] y) <float[4,8] w1, float[8,4] w2> {
      a = MatMul(x, w1)
      y = If (c) <then_branch = yes () => (float[N,4] p) { b = Constant<value = float[8] {1,2,3,4,5,6,7,8}>()
                    d = Add(a, b)
                    e = Relu(d)
                    p = MatMul(e, w2) },
                  else_branch = no () => (float[N,4] q) { f = Relu(a)
                    q = MatMul(f, w2) }>
    }"""
    result = masked(parse(text)).model
    assert {"w1", "w2", "b"} <= result.weights.keys()
    onnx.checker.check_model(result.to_proto(), full_check=True)
    body = next(attribute.g for attribute in result.graph.node[1].attribute if attribute.name == "then_branch")
    assert [node.op_type for node in body.node] == ["Add", "Relu", "MatMul"]


@pytest.mark.parametrize(
    ("made", "name"),
    [
        ("m = Transpose<perm = [1, 0]>(wt)", "m"),
        ("t = Transpose<perm = [1, 0]>(wt)\n m = Mul(t, mask)", "m"),
        ("t = Transpose<perm = [1, 0]>(wt)\n k = Identity(t)\n m = Identity(k)", "m"),
    ],
)
def test_a_weight_that_nodes_make_is_zeroed_where_it_is_read(made: str, name: str) -> None:
    text = f"""(float[N,4] x) => (float[N,4] y) <float[8,4] wt, float[4,8] mask, float[8,4] v> {{
      {made}
      a = MatMul(x, m)
      b = Relu(a)
      y = MatMul(b, v)
    }}"""
    result = masked(parse(text))
    assert result.computed == (name,)
    assert [node.op_type for node in result.model.graph.node].count("Where") == 1


def test_a_constant_node_is_a_constant_of_the_file() -> None:
    model = parse(
        "(float[N,4] x) => (float[N,4] y) <float[4,8] w, float[8,4] v> { a = MatMul(x, w)\n b = Relu(a)\n y = MatMul(b, v) }"
    )
    weight = model.graph.initializer.pop(0)
    model.graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))
    result = masked(model)
    assert not result.computed
    assert "w" in result.model.weights
    assert [node.op_type for node in result.model.graph.node] == ["MatMul", "Relu", "MatMul"]


FUNCTION = """<ir_version: 9, opset_import: ["" : 18, "own" : 1]>
g (float[N,4] x) => (float[N,4] y) <float[4,8] w1, float[8,4] w2> {
  a = own.Layer(x, w1)
  y = own.Layer(a, w2)
}
<domain: "own", opset_import: ["" : 18]>
Layer (x, w) => (y) { a = MatMul(x, w)
 y = Relu(a) }"""


def test_functions_are_inlined_and_no_more() -> None:
    model = onnx.parser.parse_model(FUNCTION)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (4, 8)), ("w2", (8, 4))):
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    assert not masked(model).missing


def test_a_constant_that_a_pass_changed_is_not_the_files() -> None:
    """Whatever a pass did to the constants, the file has its own: what was cut from others is not equal to it."""
    found = analyze(parse(NETS["residual"]))
    plan = Plan({group.id: np.array(some(group.size)) for group in found.coupling.groups})
    weight = found.model.weights["w2"]
    found.model.weights["w2"] = weight.derived(weight.shape, lambda array: array * np.float32(1.01))
    result = MaskSource().run(Model.of(parse(NETS["residual"])), found, plan)
    pruned = PruneChannels().run(found, plan)
    assert compare(pruned, MaskChannels().run(found, plan)).ok
    assert not unchanged(pruned, result.model).ok


def test_a_plan_that_removes_nothing_leaves_the_file() -> None:
    source = Model.of(parse(NETS["residual"]))
    assert MaskSource().run(source, analyze(parse(NETS["residual"])), Plan({})).model is source
