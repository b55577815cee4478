"""What int8 adds to a file in few bytes: names, shared parameters, defaults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto

from int8_nets import net, samples
from nets import parse
from onnxprune.driver.prune import prune
from onnxprune.driver.quantize import quantize
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Compact

LONG = "model_1/block_3/conv2d/BiasAdd;model_1/block_3/activation/Relu;model_1/block_3/add/ReadVariableOp"

BEFORE = """(float[N,4] x) => (float[N,2] y)
    <int8[4,2] w_quantized = {1, 2, 3, 4, 5, 6, 7, 8}, float w_scale = {0.5}, int8 w_zero_point = {0},
     int32[2] b_quantized = {1, 2}, float[2] b_quantized_scale = {0.5, 0.25}, int32[2] b_quantized_zero_point = {0, 0},
     float x_scale = {0.5}, uint8 x_zero_point = {3}, float h_scale = {0.5}, uint8 h_zero_point = {3}> {
      xq = QuantizeLinear(x, x_scale, x_zero_point)
      xd = DequantizeLinear(xq, x_scale, x_zero_point)
      wd = DequantizeLinear(w_quantized, w_scale, w_zero_point)
      b = DequantizeLinear(b_quantized, b_quantized_scale, b_quantized_zero_point)
      h = Gemm(xd, wd, b)
      hq = QuantizeLinear(h, h_scale, h_zero_point)
      hd = DequantizeLinear(hq, h_scale, h_zero_point)
      y = Relu(hd)
    }"""

EXPECTED = """(float[N,4] x) => (float[N,2] y)
    <int8[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float scale0 = {0.5}, uint8 zero0 = {3},
     int32[2] b = {1, 2}, float[2] scale1 = {0.5, 0.25}, int8 zero1 = {0}> {
      q0 = QuantizeLinear(x, scale0, zero0)
      dq0 = DequantizeLinear(q0, scale0, zero0)
      dq1 = DequantizeLinear(w, scale0, zero1)
      dq2 = DequantizeLinear(b, scale1)
      h = Gemm(dq0, dq1, dq2)
      q1 = QuantizeLinear(h, scale0, zero0)
      dq3 = DequantizeLinear(q1, scale0, zero0)
      y = Relu(dq3)
    }"""

FILE = """(float[N,4] x) => (float[N,2] y) <float[4,2] w = {1, 1, 1, 1, 1, 1, 1, 1}, float[2] b = {1, 2}> {
      h = Gemm(x, w, b)
      y = Relu(h)
    }"""


def text_of(model: Model) -> tuple[list[tuple[str, list[str], list[str]]], set[tuple[str, int, bytes]]]:
    """Nodes and constants of a model, as they compare."""
    nodes = [(node.op_type, list(node.input), list(node.output)) for node in model.graph.node]
    return nodes, {(name, weight.dtype, weight.array().tobytes()) for name, weight in model.weights.items()}


def fused(model: ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs for a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for node in Model.of(folder / "optimized.onnx").graph.node)


def renamed(proto: ModelProto, names: dict[str, str]) -> ModelProto:
    """A model whose values are called otherwise."""
    for value in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    for node in proto.graph.node:
        node.name = f"{LONG}/{node.output[0]}"
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    return proto


def test_names_are_short_equal_parameters_are_one_and_biases_have_no_zero_point() -> None:
    assert text_of(Compact().run(Model.of(parse(BEFORE)), Model.of(parse(FILE)))) == text_of(Model.of(parse(EXPECTED)))


def test_names_that_the_file_has_are_given_to_nothing_else() -> None:
    file = FILE.replace("h = Gemm(x, w, b)", "q0 = Gemm(x, w, b)").replace("Relu(h)", "Relu(q0)")
    before = BEFORE.replace("h = Gemm", "q0 = Gemm").replace("(h, h_scale", "(q0, h_scale")
    result = Compact().run(Model.of(parse(before)), Model.of(parse(file)))
    made = Counter(name for node in result.graph.node for name in node.output)
    assert made == Counter(["q0", "q1", "q2", "dq0", "dq1", "dq2", "dq3", "y"])
    assert [node.output[0] for node in result.graph.node if node.op_type == "Gemm"] == ["q0"]


def test_no_two_nodes_have_one_name() -> None:
    before, file = (parse(text) for text in (BEFORE, FILE))
    for proto in (before, file):
        proto.graph.node[-1].name = "q0"
    next(node for node in file.graph.node if node.output[0] == "h").name = "q0"
    result = Compact().run(Model.of(before), Model.of(file))
    names = [node.name for node in result.graph.node if node.name]
    assert names == ["dq0", "dq1", "dq2", "q1", "dq3", "q0"]


def test_what_is_recorded_of_values_that_changed_their_names_is_gone() -> None:
    before, file = (parse(text) for text in (BEFORE, FILE))
    for name, kind in (("b", TensorProto.FLOAT), ("h", TensorProto.FLOAT)):
        before.graph.value_info.add(name=name).type.tensor_type.elem_type = kind
    result = Compact().run(Model.of(before), Model.of(file))
    assert [value.name for value in result.graph.value_info] == ["h"]


def test_attributes_that_the_file_does_not_spell_are_not_spelled() -> None:
    before = parse(BEFORE.replace("Gemm(xd", "Gemm<alpha = 1.0, beta = 1.0, transA = 0, transB = 1>(xd"))
    file = parse(FILE.replace("Gemm(x", "Gemm<beta = 1.0>(x"))
    result = Compact().run(Model.of(before), Model.of(file))
    assert [one.name for node in result.graph.node for one in node.attribute if node.op_type == "Gemm"] == ["beta", "transB"]


def test_long_names_are_not_repeated() -> None:
    """A file with names of 100 letters grows by no more bytes than one with short ones."""
    values = ("a", "b", "c", "d", "e", "f", "g", "h")
    file = renamed(net(), {name: f"{LONG}/{name}" for name in values})
    sizes = [quantize(proto, samples=samples()).report.size for proto in (net(), file)]
    assert sizes[1][1] - sizes[0][1] <= sizes[1][0] - sizes[0][0]


def test_the_file_keeps_its_names() -> None:
    proto = renamed(net(), {"a": f"{LONG}/a"})
    result = quantize(proto, samples=samples()).compiled
    assert {"first", "second", "third", "fourth", "last_bias"} <= result.weights.keys()
    named = {node.name for node in result.graph.node if not node.op_type.endswith("Linear")}
    assert named <= {node.name for node in proto.graph.node}
    assert [value.name for value in (*result.graph.input, *result.graph.output)] == ["x", "y"]


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_onnx_runtime_fuses_the_same(activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = QuantRecipe(activations=activations)
    after = quantize(net(), recipe, samples=samples()).model
    monkeypatch.setattr(Compact, "run", lambda *given: given[1])
    before = quantize(net(), recipe, samples=samples()).model
    assert fused(after, tmp_path) == fused(before, tmp_path)
    feeds = samples()
    outputs = [ort.InferenceSession(proto.SerializeToString()).run(None, feeds)[0] for proto in (before, after)]
    np.testing.assert_array_equal(*outputs)


def test_what_was_made_small_can_be_pruned() -> None:
    quantized = quantize(net(), samples=samples()).model
    check = prune(quantized, Recipe(target="params=0.6")).report.verification
    assert check is not None
    assert check.ok
