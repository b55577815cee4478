"""Small models for timing are in the form that ONNX Runtime's quantizer gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import int8_nets
from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.layers import layers_of
from onnxprune.driver.ort_quantizer import Settings, Workshop
from onnxprune.ir.model import Model
from onnxprune.latency.int8_form import in_int8
from onnxprune.latency.timer import furnished, has_data

MODELS = Path(__file__).resolve().parents[2] / "models"
KINDS = {
    "pools": """(float[N,4,8,8] x) => (float[N,8] y, float[N,8,4,4] p) <float[8,4,3,3] w, float[8] b, float[1,8,1,1] c> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        r = Relu (a)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        m = Mul (p, c)
        t = Sigmoid (m)
        g = GlobalAveragePool (t)
        y = Flatten (g) }""",
    "two readers of what a rectifier reads": """(float[N,4,8,8] x) => (float[N,8,8,8] y) <float[8,4,3,3] w, float[8,8,1,1] v> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        r = Relu (a)
        s = Conv (r, v)
        y = Add (s, a) }""",
    "tokens": """(float[N,5,16] x) => (float[N,5,16] y) <float[16,16] q, float[16,16] k, float[16] b, float[16] one> {
        s = MatMul (x, q)
        t = Add (s, b)
        u = MatMul (x, k)
        v = Transpose <perm = [0, 2, 1]> (u)
        w = MatMul (t, v)
        z = Softmax <axis = -1> (w)
        h = MatMul (z, x)
        r = Add (h, x)
        y = LayerNormalization (r, one) }""",
    "a rectifier that reads the input": """(float[N,4] x) => (float[N,6] y) <float[4,6] w> {
        r = Relu (x)
        y = MatMul (r, w) }""",
}


def stripped(proto: ModelProto) -> ModelProto:
    """A model whose large constants have no data, as those that are timed."""
    result = ModelProto()
    result.CopyFrom(proto)
    del result.graph.initializer[:]
    for tensor in proto.graph.initializer:
        large = np.prod(tensor.dims) > 8
        result.graph.initializer.append(
            TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims) if large else tensor
        )
    return result


def filled(proto: ModelProto) -> ModelProto:
    """The same with any data."""
    result = ModelProto()
    result.CopyFrom(proto)
    rng = np.random.default_rng(0)
    for tensor in result.graph.initializer:
        if not has_data(tensor):
            tensor.CopyFrom(numpy_helper.from_array(furnished(tensor, rng).array(), tensor.name))
    return result


def runs(proto: ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs for a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(filled(proto).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def quantised(proto: ModelProto, feeds: Mapping[str, Any]) -> tuple[ModelProto, ModelProto]:
    """A model as ONNX Runtime prepares it for its quantizer, and what that makes of it."""
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    settings = Settings("minmax", 99.9, per_channel=True, activations="uint8", reduce_range=False)
    with Workshop(Model.of(proto)) as workshop:
        prepared = workshop.prepare(opset=13)
        workshop.measure(settings, open_samples(dict(feeds), prepared.inputs))
        return prepared.to_proto(), workshop.quantize(settings).to_proto()


@pytest.mark.parametrize("name", KINDS)
def test_the_same_kernels_run_as_for_the_quantizers_model(name: str, tmp_path: Path) -> None:
    proto = parse(KINDS[name])
    shape = [dim.dim_value or 4 for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    prepared, theirs = quantised(proto, feeds)
    assert runs(in_int8(stripped(prepared)), tmp_path) == runs(theirs, tmp_path)


@pytest.mark.parametrize("name", ["digits", "digits__ts"])
def test_and_of_a_whole_network(name: str, tmp_path: Path) -> None:
    proto = onnx.load(MODELS / f"{name}.onnx")
    feeds = {proto.graph.input[0].name: np.random.default_rng(0).random((16, 1, 8, 8), np.float32)}
    prepared, theirs = quantised(proto, feeds)
    ours = runs(in_int8(stripped(prepared)), tmp_path)
    assert ours == runs(theirs, tmp_path)
    assert ours["QLinearConv"] + ours["QGemm"] == len(layers_of(Model.of(prepared)))


def test_constants_have_no_data_and_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    form = in_int8(stripped(int8_nets.net()))
    weights = {tensor.name: tensor for tensor in form.graph.initializer if np.prod(tensor.dims) > 8}
    assert not any(has_data(tensor) for tensor in weights.values())
    assert {tensor.data_type for tensor in weights.values()} <= {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
    assert runs(form, tmp_path)["QLinearConv"] == 2


def test_what_has_no_such_form_stays_as_it_is() -> None:
    old = parse("(float[1,3,8,8] x) => (float[1,4,8,8] y) <float[4,3,1,1] w> { y = Conv (x, w) }")
    old.opset_import[0].version = 9
    assert in_int8(old) is old
