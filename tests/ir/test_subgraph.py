"""A part of a graph as a model of its own."""

from __future__ import annotations

from onnx import TensorProto, helper

from nets import NETS, parse
from onnxprune.ir.model import Model
from onnxprune.ir.subgraph import extract, outer_values, subgraph


def test_a_part_reads_what_it_does_not_make() -> None:
    model = Model.of(parse(NETS["residual"]))
    nodes = model.graph.node[3:5]
    inside = extract(model, nodes, ["sum"], lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    assert outer_values(nodes) == ["r", "w2", "b2", "stem"]
    assert [value.name for value in inside.graph.input] == ["r", "stem"]
    assert [value.name for value in inside.graph.output] == ["sum"]
    assert inside.weights.keys() == {"w2", "b2"}


def test_bodies_read_too_and_absent_inputs_do_not_count() -> None:
    proto = parse("""(float[N] x, bool b, float[N] z) => (float[N] y) {
      t = Clip(x, , z)
      y = If (b) <then_branch = one () => (float[N] s) { s = Add(t, z) }, else_branch = two () => (float[N] u) { u = Neg(x) }>
    }""")
    assert outer_values(proto.graph.node) == ["x", "z", "b"]
    assert outer_values(proto.graph.node[1:]) == ["b", "t", "x", "z"]


def test_the_operator_sets_and_functions_are_those_of_the_whole_and_constants_need_not_be_inputs() -> None:
    proto = parse("(float[N] x) => (float[N] y) { y = Neg(x) }")
    proto.ir_version = 3
    proto.functions.add(name="f", domain="my.domain")
    part = subgraph(proto, proto.graph.node, proto.graph.input, ["y"])
    assert (part.opset_import, part.functions, part.ir_version) == (proto.opset_import, proto.functions, 4)
