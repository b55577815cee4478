"""Models without local functions, whose nodes are sorted."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper

from nets import parse
from onnxprune import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.plain import make_plain
from onnxprune.runtime.session import inference_session


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def plain(model: ModelProto) -> ModelProto:
    make_plain(model, "here")
    return model


def calling(function: str, opset: int = 18) -> ModelProto:
    """A model that calls ``mine.f`` of another text."""
    return parse(f"(float[2,4] x) => (float[2,4] y) {{ y = mine.f(x) }} {function}", opset, domains=["mine"])


def test_functions_are_inlined_behind_each_other() -> None:
    model = calling("""
      <domain: "mine", opset_import: ["": 18, "mine": 1]> f (p) => (r) { s = mine.g(p) r = mine.g(s) }
      <domain: "mine", opset_import: ["": 18]> g (p) => (r) { t = Sigmoid(p) r = Mul(p, t) }""")
    assert operators(plain(model)) == ["Sigmoid", "Mul"] * 2
    assert not model.functions


def test_attributes_and_missing_inputs_are_passed_on() -> None:
    model = parse(
        """(float[2,4] x) => (float[2,4] y) { y = mine.f<low: float = 0.5>(x) }
        <domain: "mine", opset_import: ["": 18]> f <low> (p, q) => (r) {
          s = LeakyRelu<alpha: float = @low>(p) r = Clip(s, q) }""",
        domains=["mine"],
    )
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(inference_session(plain(model)).run(None, {"x": x})[0], np.where(x < 0, x / 2, x))


def test_another_operator_set_is_no_obstacle_where_the_operators_are_the_same() -> None:
    same, changed = (
        calling(f'<domain: "mine", opset_import: ["": 18]> f (p) => (r) {{ r = {op}(p) }}') for op in ("Exp", "ReduceMax")
    )
    for model in (same, changed):
        model.functions[0].opset_import[0].version = 17
    assert operators(plain(same)) == ["Exp"]
    assert operators(plain(changed)) == ["f"]  # from operator set 18 on, axes are an input


def test_operator_sets_that_only_functions_use_are_added() -> None:
    model = calling('<domain: "mine", opset_import: ["": 18, "com.microsoft": 1]> f (p) => (r) { r = com.microsoft.Gelu(p) }')
    assert ("com.microsoft", 1) in {(opset.domain, opset.version) for opset in plain(model).opset_import}
    inference_session(model)


def test_nodes_are_sorted_in_the_copy_alone() -> None:
    model = parse("(float[2] x) => (float[2] y) { a = Neg(x) y = Abs(a) }")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert operators(Model.of(model).proto) == ["Neg", "Abs"]
    assert operators(model) == ["Abs", "Neg"]


def test_a_circle_is_refused_by_whoever_reads_the_model() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    value = helper.make_tensor_value_info("x", 1, [2])
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [helper.make_tensor_value_info("b", 1, [2])]))
    with pytest.raises(ModelError, match="in a circle"):
        Model.of(model)


@pytest.mark.parametrize("domains", [("", ""), ("", "ai.onnx"), ("ai.onnx", "")])
def test_of_an_operator_set_that_is_named_twice_the_last_version_counts(domains: tuple[str, str]) -> None:
    model = parse("(float[2,4] x) => (float[2] y) { y = ReduceMax<axes = [1], keepdims = 0>(x) }", 17)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*one) for one in zip(domains, (18, 17), strict=True))
    assert inference_session(model).run(None, {"x": np.ones((2, 4), np.float32)})[0].shape == (2,)  # not an operator of 18
    read = Model.of(model)
    assert read.opset == 17
    assert [(one.domain, one.version) for one in read.proto.opset_import] == [("", 17)]
