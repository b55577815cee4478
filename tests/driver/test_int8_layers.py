"""What ONNX Runtime's quantizer cannot do is done for it, or stays in floating point and is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.driver.int8_layers import (
    left_alone,
    make_biases_vectors,
    masked_scores,
    name_nodes,
    scaled_whole,
    separate_names,
    unlike_parts,
)
from onnxprune.driver.quantize import QuantResult, quantize
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.options.quantize import QuantRecipe
from onnxprune.runtime.session import Session

RNG = np.random.default_rng(0)
X = {"x": RNG.standard_normal((8, 8)).astype(np.float32)}
DYNAMIC = """(float[N, 8] x) => (float[N, 4] y) {
    q, s, z = DynamicQuantizeLinear (x)
    i = MatMulInteger (q, w, z)
    f = Cast <to = 1> (i)
    t = Mul (s, u)
    a = Mul (f, t)
    b = Relu (a)
    y = MatMul (b, v)
}"""
"""A layer as ONNX Runtime quantises it dynamically, and one in floating point."""


def net(text: str, *, opset: int = 17, ir: int = 8, inputs: bool = False, **constants: Any) -> onnx.ModelProto:
    """A graph and its constants: arrays, or shapes of noise. Before version 4 of the format these are inputs as well."""
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "com.microsoft": 1]> net {text}')
    for name, value in constants.items():
        array = RNG.standard_normal(value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
        if inputs:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    onnx.checker.check_model(proto)
    return proto


def dynamic() -> onnx.ModelProto:
    weight = RNG.integers(-9, 9, (8, 8)).astype(np.int8)
    return net(DYNAMIC, w=weight, u=np.float32(0.1), v=(8, 4))


def small(proto: onnx.ModelProto, feeds: dict[str, Array] = X, **fields: Any) -> QuantResult:
    return quantize(proto, QuantRecipe(**fields), samples=feeds)


def reasons(result: QuantResult) -> dict[str, str]:
    return {node["node"]: node["why"] for node in result.report.kept}


def near(result: QuantResult) -> bool:
    assert result.report.drift is not None
    return result.report.drift.cosine > 0.99


# Biases


@pytest.mark.parametrize("shape", [(12,), (1, 12), (1,), (1, 1), ()])
@pytest.mark.parametrize("fields", [{}, {"per_channel": False}, {"activations": "int8"}])
@pytest.mark.parametrize("ir", [3, 8])
def test_a_bias_of_any_shape_that_is_a_row_is_quantized(shape: Sequence[int], fields: dict[str, Any], ir: int) -> None:
    text = "(float[N, 8] x) => (float[N, 4] y) { a = Gemm (x, w, b) c = Relu (a) y = MatMul (c, v) }"
    result = small(net(text, opset=11, ir=ir, inputs=ir < 4, w=(8, 12), b=tuple(shape), v=(12, 4)), **fields)
    assert {"Gemm", "MatMul"} <= result.report.nodes.keys()
    assert result.report.kept == ()
    assert near(result)


def test_a_bias_that_others_read_keeps_its_shape_for_them() -> None:
    text = "(float[N, 8] x) => (float[N, 12] y, float[1, 12] z) { a = Gemm (x, w, b) y = Relu (a) z = Relu (b) }"
    result = small(net(text, w=(8, 12), b=(1, 12)))
    assert result.report.nodes["Gemm"] == 1
    assert Session(result.compiled).run(X)[1].shape == (1, 12)
    assert near(result)


@pytest.mark.parametrize("first", ["a = MatMul (x, w) b = Add (a, c)", "b = Gemm (x, w, c)"])
@pytest.mark.parametrize("shape", [(8, 12), (8, 1)])
def test_a_matrix_that_is_added_is_no_bias(first: str, shape: tuple[int, ...]) -> None:
    text = f"(float[8, 8] x) => (float[8, 4] y) {{ {first} d = Relu (b) y = MatMul (d, v) }}"
    result = small(net(text, w=(8, 12), c=shape, v=(12, 4)))
    assert result.report.nodes == {"MatMul": 2, "Add": 1}
    assert near(result)


def test_a_matrix_that_a_scaled_product_adds_stays_in_floating_point() -> None:
    text = "(float[8, 8] x) => (float[8, 4] y) { b = Gemm <beta = 2.0, transB = 1> (x, w, c) d = Relu (b) y = MatMul (d, v) }"
    proto = net(text, w=(12, 8), c=(8, 12), v=(12, 4))
    proto.graph.node[0].name = "first"
    result = small(proto)
    assert reasons(result)["first"] == "its bias 'c' of shape [8, 12] is not one number for each column"
    assert result.report.nodes["MatMul"] == 1
    assert near(result)


def test_a_bias_that_is_left_out_is_none() -> None:
    proto = net("(float[N, 8] x) => (float[N, 12] y) { a = Gemm (x, w) y = Relu (a) }", w=(8, 12))
    proto.graph.node[0].input.append("")
    assert not [note for note in small(proto).report.notes if note.startswith("ONNX Runtime:")]


def test_vectors_are_made_only_where_biases_are_none() -> None:
    text = "(float[N, 8] x) => (float[N, 12] y) { a = Gemm (x, w, b) y = Relu (a) }"
    model = Model.of(net(text, w=(8, 12), b=(12,)))
    assert not make_biases_vectors(model)
    model = Model.of(net(text, w=(8, 12), b=(1, 12)))
    before = model.weights["b"].array()
    assert make_biases_vectors(model)
    assert np.array_equal(model.weights["b"].array(), before[0])


# Scales


@pytest.mark.parametrize("fields", [{}, {"activations": "int8"}])
@pytest.mark.parametrize(
    ("text", "constants", "feeds"),
    [
        (
            "(float[N, 8, 5] x) => (float[N, 12, 11] y) { y = ConvTranspose <group = 2, strides = [2]> (x, w, b) }",
            {"w": (8, 6, 3), "b": (12,)},
            {"x": RNG.standard_normal((8, 8, 5)).astype(np.float32)},
        ),
        (
            "(float[2, N, 8] x) => (float[2, N, 4] y) { a = MatMul (x, w) y = Relu (a) }",
            {"w": (2, 8, 4)},
            {"x": RNG.standard_normal((2, 8, 8)).astype(np.float32)},
        ),
    ],
)
def test_weights_whose_channels_cannot_have_scales_have_one(
    text: str, constants: dict[str, Any], feeds: dict[str, Array], fields: dict[str, Any]
) -> None:
    proto = net(text, **constants)
    assert scaled_whole(Model.of(proto)) == ["w"]
    result = small(proto, feeds, **fields)
    assert result.report.weights == 1
    assert any(note.startswith("weights with one scale") and note.endswith(": w") for note in result.report.notes)
    assert near(result)
    assert not any("one scale" in note for note in small(proto, feeds, per_channel=False, **fields).report.notes)


# What stays


def test_layers_that_are_in_integers_stay_as_they_are() -> None:
    proto = dynamic()
    result = small(proto)
    assert result.report.nodes == {"MatMul": 1}
    assert Counter(reasons(result).values()) == {"it is quantised already": 3, "what it reads is not in int8": 1}
    ops = Counter(node.op_type for node in result.compiled.graph.node)
    assert (ops["MatMulInteger"], ops["Cast"], ops["Mul"]) == (1, 1, 2)
    assert near(result)
    del proto.graph.node[5:]
    proto.graph.node[4].output[0] = "y"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    with pytest.raises(TargetError, match="nothing in it can be quantised: it is quantised already"):
        small(proto)


def test_what_the_operators_of_onnx_runtime_output_is_quantized_as_well() -> None:
    text = """(float[N, 8] x) => (float[N, 4] y) {
        a = com.microsoft.DynamicQuantizeMatMul (x, w, s)
        b = Relu (a)
        y = MatMul (b, v)
    }"""
    result = small(net(text, w=RNG.integers(-9, 9, (8, 8)).astype(np.int8), s=np.float32(0.1), v=(8, 4)))
    assert result.report.nodes["MatMul"] == 1
    assert not [note for note in result.report.notes if note.startswith("ONNX Runtime:")]


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_what_is_infinite_stays_in_floating_point(activations: str) -> None:
    text = """(float[N, 8] x) => (float[N, 8] y, float[N, 4] z) {
        a = MatMul (x, w) b = Add (a, mask) y = Softmax (b)
        n = Sub (a, a) l = Log (n) z = MatMul (l, v)
    }"""
    proto = net(text, w=(8, 8), mask=np.where(np.eye(8)[0] > 0, -np.inf, 0).astype(np.float32), v=(8, 4))
    for node in proto.graph.node:
        node.name = node.op_type + node.output[0]
    proto.graph.node[-1].name = "last"
    result = small(proto, activations=activations)
    found = reasons(result)
    assert "its constant 'mask' is not finite everywhere" in found.values()
    assert found["Softmaxy"] == "'b' is not finite on the samples"
    assert found["last"] == "'l' is not finite on the samples"
    assert result.report.nodes == {"MatMul": 1}
    probabilities = [Session(model).run(X)[0] for model in (Model.of(proto), result.compiled)]
    assert np.abs(probabilities[0] - probabilities[1]).max() < 0.05


@pytest.mark.parametrize("lowest", [-1e4, -1e9, np.finfo(np.float32).min])
def test_masked_scores_stay_in_floating_point(lowest: float) -> None:
    text = """(float[N, 8] x) => (float[N, 8] y) {
        a = MatMul (x, w) s = Mul (a, half) keep = Greater (x, zero) m = Where (keep, zero, low)
        b = Add (s, m) p = Softmax (b) y = MatMul (p, v)
    }"""
    proto = net(text, w=(8, 8), v=(8, 8), zero=np.float32(0), low=np.float32(lowest), half=np.float32(0.5))
    for node in proto.graph.node:
        node.name = node.op_type + node.output[0]
    result = small(proto)
    found = reasons(result)
    assert found["Softmaxp"].endswith("is masked by numbers so low that int8 tells no others apart")
    assert result.report.nodes["MatMul"] == 2
    outputs = [Session(model).run(X)[0] for model in (Model.of(proto), result.compiled)]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1


def test_only_what_softmax_reads_is_taken_for_a_mask() -> None:
    nodes = net(
        "(float[N, 8] x) => (float[N, 8] y, float[N, 8] z) { a = Mul (x, s) y = Softmax (a) z = Add (a, b) }", s=(), b=(8,)
    ).graph.node
    wide, narrow = (np.float32(-300), np.float32(0)), (np.float32(-3), np.float32(3))
    assert masked_scores(nodes, {"x": wide, "a": wide, "z": wide}) == {"a", "x"}
    assert masked_scores(nodes, {"x": wide, "a": narrow, "z": wide}) == set()


def test_scores_beside_boxes_stay_in_floating_point() -> None:
    """Next to 320 pixels a score of 0.5 is zero in int8, as in detectors of Ultralytics; layers are in int8 even so."""
    text = """(float[N, 8] x) => (float[N, 2, 8] y) {
        a = MatMul (x, w) s = Sigmoid (a) b = MatMul (x, v) p = Mul (b, pixels) j = Concat <axis=1> (p, s)
        y = Reshape (j, shape)
    }"""
    proto = net(text, w=(8, 8), v=(8, 8), pixels=np.float32(100), shape=np.array([0, 2, 8]))
    for node in proto.graph.node:
        node.name = node.op_type + node.output[0]
    result = small(proto)
    why = "holds numbers so small beside others that int8 tells them from zero no more"
    assert {name: text.endswith(why) for name, text in reasons(result).items()} == {"Concatj": True, "Reshapey": True}
    assert result.report.nodes["MatMul"] == 2
    outputs = [Session(model).run(X)[0][:, 1] for model in (Model.of(proto), result.compiled)]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.05


@pytest.mark.parametrize(
    ("nodes", "small", "found"),
    [
        ("j = Concat <axis=1> (x, s) y = Relu (j)", 1, {"j"}),
        ("j = Concat <axis=1> (x, s) y = Relu (j)", 10, set()),  # 8 of 256 steps
        ("j = Concat <axis=1> (x, s) y = Relu (j)", 0, set()),  # nothing but zeros
        (
            "t = Transpose (x) j = Concat <axis=1> (x, s) k = Slice (j, one, two, one) y = Concat <axis=1> (k, t)",
            1,
            {"j", "k", "y"},
        ),
        ("j = Concat <axis=1> (x, s) k = Reshape (j, two) y = MatMul (k, w)", 1, set()),
        ("j = Concat <axis=1> (s, c) y = Relu (j)", 1, set()),  # a constant has no range
    ],
)
def test_parts_are_unlike_where_integers_tell_some_from_zero_no_more(nodes: str, small: float, found: set[str]) -> None:
    text = f"(float[N, 16] x, float[N, 16] s) => (float[N, 16] y) {{ {nodes} }}"
    graph = net(text, w=(16, 16), c=(1, 16), one=np.array([1]), two=np.array([2])).graph
    wide = (np.float32(-20), np.float32(300))
    ranges = {name: wide for node in graph.node for name in node.output} | {"x": wide, "s": (np.float32(0), np.float32(small))}
    assert unlike_parts(graph.node, ranges) == found


@pytest.mark.parametrize("rectifier", ["Relu (a)", "Clip (a, zero)"])
def test_an_output_is_not_cut_off_by_the_range_of_a_rectifier_behind_it(rectifier: str) -> None:
    text = f"(float[N, 8] x) => (float[N, 8] a, float[N, 4] y) {{ a = MatMul (x, w) b = {rectifier} y = MatMul (b, v) }}"
    result = small(net(text, w=(8, 8), v=(8, 4), zero=np.float32(0)))
    assert (Session(result.compiled).run(X)[0] < 0).any()
    assert near(result)
    assert "what it cuts off 'a' is needed elsewhere" in reasons(result).values()


@pytest.mark.parametrize("rectifier", ["Relu (a)", "Clip (a, zero)"])
def test_a_body_reads_what_a_rectifier_outputs(rectifier: str) -> None:
    """The quantizer would drop the node and name what it reads like what it outputs; in bodies nothing cuts that off."""
    text = f"""(float[N, 8] x, bool c) => (float[N, 8] y, float[N, 4] z) {{
        a = MatMul (x, w) [cut] b = {rectifier} z = MatMul (b, v)
        y = If (c) <then_branch = t () => (float[N, 8] p) {{ p = Identity (b) }},
                    else_branch = e () => (float[N, 8] q) {{ q = Neg (b) }}>
    }}"""
    feeds = X | {"c": np.array(True)}
    result = small(net(text, w=(8, 8), v=(8, 4), zero=np.float32(0)), feeds)
    assert (Session(result.compiled).run(feeds)[0] >= 0).all()
    assert reasons(result)["cut"] == "a branch or loop reads 'b', which would not be cut off there"
    assert result.report.nodes["MatMul"] == 2


def test_what_onnx_runtime_fails_at_stays_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.quantization.operators.gemm import QDQGemm

    def fail(self: Any) -> None:
        raise IndexError("index 1 is out of bounds")

    monkeypatch.setattr(QDQGemm, "quantize", fail)
    text = "(float[N, 8] x) => (float[N, 4] y) { a = Gemm (x, w, b) c = Relu (a) d = Gemm (c, w, b) y = MatMul (d, v) }"
    proto = net(text, w=(8, 8), b=(8,), v=(8, 4))
    proto.graph.node[0].name, proto.graph.node[2].name = "first", "second"
    result = small(proto)
    assert result.report.nodes["MatMul"] == 1
    for name in ("first", "second"):
        assert reasons(result)[name] == "ONNX Runtime fails at it: index 1 is out of bounds"


def test_a_model_without_quantized_weights_says_so() -> None:
    proto = net("(float[N, 8] x) => (float[N, M] y) { t = Transpose <perm = [1, 0]> (x) y = MatMul (x, t) }")
    with pytest.raises(TargetError, match="no operator reads a weight in floating point"):
        small(proto)


# Names


def test_names_that_the_quantizer_makes_are_no_trouble() -> None:
    text = """(float[N, 8] x) => (float[N, 8] y) {
        w_quantized = MatMul (x, w) x_scale = Relu (w_quantized) y = MatMul (x_scale, w_scale)
    }"""
    proto = net(text, w=(8, 8), w_scale=(8, 8))
    proto.graph.node[0].name = "x_QuantizeLinear"
    for activations in ("uint8", "int8"):
        result = small(proto, activations=activations)
        assert result.report.nodes["MatMul"] == 2
        assert near(result)


def test_a_value_may_be_called_as_the_copy_of_a_shared_bias_is() -> None:
    """... which the quantizer numbers from `b0` on."""
    text = "(float[N, 8] x) => (float[N, 8] y) { a = Gemm (x, w, b) b0 = Gemm (a, w, b) b1 = Sigmoid (b0) y = Gemm (b1, v, b) }"
    result = small(net(text, w=(8, 8), v=(8, 8), b=(8,)))
    assert result.report.nodes["Gemm"] == 3
    assert near(result)


def test_values_of_the_interface_and_of_bodies_keep_their_names() -> None:
    text = """(float[N, 8] x, bool c) => (float[N, 8] x_scale) {
        y = MatMul (x, w) y_scale = MatMul (x, w)
        x_scale = If (c) <then_branch = a () => (float[N, 8] p) { p = Relu (y_scale) },
                          else_branch = b () => (float[N, 8] q) { q = Identity (y) }>
    }"""
    model = Model.of(net(text, w=(8, 8)))
    assert name_nodes(model)
    assert not separate_names(model)
    assert left_alone(model, ()) == {}


def test_float16_inside_is_left_to_onnx_runtime() -> None:
    text = (
        "(float[N, 8] x) => (float[N, 4] y) { a = Cast <to = 10> (x) b = MatMul (a, w) c = Cast <to = 1> (b) y = MatMul (c, v) }"
    )
    proto = net(text, w=RNG.standard_normal((8, 8)).astype(np.float16), v=(8, 4))
    assert {weight.data_type for weight in proto.graph.initializer} == {TensorProto.FLOAT16, TensorProto.FLOAT}
    assert near(small(proto))
