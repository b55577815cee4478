"""Layers that become nodes with sparse kernels: which, with what behind them, and that the file computes the same both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from kernel_nets import NET, sparse
from onnxprune.ir.model import Model
from onnxprune.kernels import build, register
from onnxprune.latency.timer import OrtTimer
from onnxprune.passes import Encode, UseKernels
from onnxprune.sparse.kernel_nodes import block_height, is_transposed, rows_of


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def outputs(model: ModelProto, feeds: Mapping[str, NDArray[Any]], *, kernels: bool) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # what is fused beyond depends on the order
    if kernels:
        register(options)
    result: NDArray[Any] = ort.InferenceSession(model.SerializeToString(), options).run(None, dict(feeds))[0]
    return result


def test_a_layer_takes_bias_residual_and_activation_along() -> None:
    found = UseKernels().run(Model.of(sparse(NET)))
    assert operators(found.model) == [
        "SparseConvRelu",
        "SparseConv",
        "SparseConvAddClip",
        "GlobalAveragePool",
        "Flatten",
        "SparseGemm",
    ]
    # The first of two convolutions that are added has the sum, which waits for the other.
    one, two, three = (layer.operator for layer in found.layers[:3])
    assert (one, two, three) == ("SparseConvRelu", "SparseConvAddClip", "SparseConv")


@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("height", [1, 2, 4, 8])
def test_both_lives_compute_the_same(height: int, opset: int) -> None:
    source = sparse(NET, height=height, opset=opset)
    found = UseKernels().run(Model.of(source))
    assert {layer.pattern for layer in found.layers} == {"unstructured" if height == 1 else f"{height}x1"}
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 16, 9, 9)).astype(np.float32)}
    expected = outputs(source, feeds, kernels=False)
    for model in (found.model, Encode().run(found.model).model):
        proto = model.to_proto()
        onnx.checker.check_model(proto)
        np.testing.assert_array_equal(outputs(proto, feeds, kernels=False), expected)
        np.testing.assert_allclose(outputs(proto, feeds, kernels=True), expected, atol=1e-5)


def test_who_reads_the_file_has_the_old_graph_back() -> None:
    source = Model.of(sparse(NET))
    again = Model.of(UseKernels().run(source).model.to_proto())
    assert sorted(operators(again)) == sorted(operators(source))
    assert not again.proto.functions
    assert again.weights.keys() == source.weights.keys()


def test_few_zeros_few_channels_and_depthwise_layers_stay() -> None:
    dense = Model.of(sparse(NET, density=0.9))
    assert UseKernels().run(dense).model is dense
    narrow = Model.of(sparse("(float[N,8,9,9] x) => (float[N,32,9,9] y) <float[32,8,1,1] w> { y = Conv(x, w) }"))
    assert UseKernels().run(narrow).layers == ()
    depthwise = "(float[N,32,9,9] x) => (float[N,32,9,9] y) <float[32,1,1,1] w> { y = Conv<group = 32>(x, w) }"
    assert UseKernels().run(Model.of(sparse(depthwise))).layers == ()


@pytest.mark.parametrize(
    "node",
    [
        'y = Conv<auto_pad = "SAME_UPPER">(x, w)',
        "a = Conv(x, w) y = Relu(a) z = Sigmoid(a)",
        "y = Conv(x, w) z = Relu(y)",
    ],
)
def test_what_follows_is_only_taken_where_nothing_else_reads_it(node: str) -> None:
    outputs = "(float[N,32,9,9] y, float[N,32,9,9] z)" if "z =" in node else "(float[N,32,9,9] y)"
    found = UseKernels().run(Model.of(sparse(f"(float[N,16,9,9] x) => {outputs} <float[32,16,1,1] w> {{ {node} }}")))
    assert [layer.operator for layer in found.layers] == ([] if "auto_pad" in node else ["SparseConv"])


def test_a_sum_that_broadcasts_stays() -> None:
    text = "(float[N,16,9,9] x, float[N,32,1,1] s) => (float[N,32,9,9] y) <float[32,16,1,1] w> { a = Conv(x, w) y = Add(a, s) }"
    assert operators(UseKernels().run(Model.of(sparse(text))).model) == ["SparseConv", "Add"]


def test_products_take_their_bias() -> None:
    text = "(float[N,7,32] x) => (float[N,7,48] y) <float[32,48] w, float[48] b> { a = MatMul(x, w) c = Add(b, a) y = Relu(c) }"
    found = UseKernels().run(Model.of(sparse(text)))
    assert operators(found.model) == ["SparseMatMulAddRelu"]
    assert list(found.model.graph.node[0].input) == ["x", "w", "b"]


def test_a_layer_that_is_measured_to_be_slower_stays() -> None:
    asked: list[list[str]] = []

    def timer(models: Sequence[ModelProto]) -> list[float | None]:
        dense, fast = models
        asked.append([*dict.fromkeys(node.op_type for node in (*dense.graph.node, *fast.graph.node))])
        assert [function.name for function in fast.functions] == [fast.graph.node[0].op_type]
        slower = "Gemm" in asked[-1]
        return [1.0, 2.0 if slower else 0.25]

    found = UseKernels(timer).run(Model.of(sparse(NET)))
    assert asked[0] == ["Conv", "Relu", "SparseConvRelu"]
    assert ["Conv", "Add", "Clip", "SparseConvAddClip"] in asked
    assert operators(found.model)[-1] == "Gemm"
    assert [layer.ratio for layer in found.layers] == [0.25] * 3


@pytest.mark.parametrize(("shape", "sizes"), [((), [1, 16, 64, 64]), (("x=?x?x20x24",), [1, 16, 20, 24])])
def test_layers_are_timed_at_sizes_that_users_use(shape: tuple[str, ...], sizes: list[int]) -> None:
    """... also those whose images may have any size: one pixel says nothing of a kernel."""
    asked: list[list[int]] = []

    def timer(models: Sequence[ModelProto]) -> list[float | None]:
        asked.extend([dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] for model in models)
        return [1.0, 0.5]

    text = "(float[N,16,H,W] x) => (float[N,32,H,W] y) <float[32,16,1,1] w> { y = Conv(x, w) }"
    assert UseKernels(timer).run(Model.of(sparse(text), shape)).layers[0].ratio == 0.5
    assert asked == [sizes] * 2


@pytest.mark.parametrize("nodes", ["a = MatMul(x, w) b = MatMul(a, v)", "a = Gemm(x, w) b = Gemm<transB=1>(a, v)"])
def test_layers_are_timed_where_others_have_filled_the_caches(nodes: str) -> None:
    """Side by side, with matrices of the same numbers that are in other places, until these are as large as the network's."""
    text = f"(float[1,32] x) => (float[1,64] b) <float[32,64] w, float[64,64] v> {{ {nodes} }}"
    model = Model.of(sparse(text))
    asked: list[ModelProto] = []

    def timer(models: Sequence[ModelProto]) -> list[float | None]:
        asked.extend(models)
        return [1.0, 0.5]

    UseKernels(timer).run(model)
    assert [len(one.graph.node) for one in asked] == [3, 3, 2, 2]
    for one in asked:
        arrays = [numpy_helper.to_array(tensor) for tensor in one.graph.initializer]
        assert len({array.tobytes() for array in arrays}) == len(arrays) == len(one.graph.output)
        rows = [rows_of(array, "Gemm", transposed=is_transposed(one.graph.node[0])) for array in arrays]
        assert len({block_height(each) for each in rows}) == 1


@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
def test_layers_are_timed_with_their_kernels() -> None:
    found = UseKernels(OrtTimer()).run(Model.of(sparse(NET)))
    assert all(layer.ratio is not None and 0 < layer.ratio < 1 for layer in found.layers)


def test_nodes_are_named_that_may_have_a_kernel_and_no_layer_is_timed_twice() -> None:
    timed: list[int] = []

    def timer(models: Sequence[ModelProto]) -> list[float | None]:
        timed.append(len(models))
        return [1.0, 0.5]

    source = sparse(NET)
    for node in source.graph.node:
        node.name = f"node {node.output[0]}"
    found = UseKernels(timer, names={"node c", "node d"}).run(Model.of(source))
    assert [layer.weight for layer in found.layers] == ["two", "three"]
    step = UseKernels(timer)
    first = step.run(Model.of(source))
    count = len(timed)
    assert step.run(Model.of(source)).layers == first.layers
    assert len(timed) == count
