"""Encoded models: what they compute, what ONNX Runtime makes of them, what stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from codec import BFLOAT16, Array, planted, same, sparse
from nets import parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_graph
from onnxprune.options.registries import ENCODINGS
from onnxprune.options.sparsify import MODES
from onnxprune.passes import Decode, Encode
from onnxprune.passes.encode import FOLDED, EncodedModel

LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
NET = """(float[N,8,9,9] x) => (float[N,10] y) <
    float[16,8,3,3] first, float[16] bias, float[32,16,1,1] second, float[288,64] wide, float[64,10] last, int64[2] flat = {0, -1}
> {
  a = Conv(x, first, bias)
  b = Relu(a)
  c = Conv<strides = [3, 3]>(b, second)
  f = Reshape(c, flat)
  h = MatMul(f, wide)
  r = Relu(h)
  y = MatMul(r, last)
}"""
"""A model whose weights a test prunes."""

NAMES = ("auto", *ENCODINGS, "dense")


def pruned(density: float = 0.2, opset: int = 18, net: str = NET, **kinds: Any) -> ModelProto:
    """A model, all large weights of which have zeros."""
    model = parse(net, opset=opset)
    for seed, tensor in enumerate(model.graph.initializer):
        if len(tensor.dims) > 1:
            array = planted(tuple(tensor.dims), density, seed=seed).astype(np.float32) / 40
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def in_pattern(model: ModelProto) -> ModelProto:
    """The same with 2:4 along what each layer sums over."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            axis = 1 if len(tensor.dims) > 2 else 0
            moved = np.moveaxis(numpy_helper.to_array(tensor), axis, -1).copy()
            moved += 0.01 * np.arange(1, moved.shape[-1] + 1)
            groups = moved.reshape(-1, 4)
            np.put_along_axis(groups, np.argsort(np.abs(groups), axis=1)[:, :2], 0, axis=1)
            array = np.moveaxis(groups.reshape(moved.shape), -1, axis).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return model


def encode(model: ModelProto, encoding: str = "auto", mode: str = "smallest", **options: Any) -> tuple[ModelProto, EncodedModel]:
    found = Encode(encoding, mode, **options).run(Model.of(model))
    return found.model.to_proto(), found


def how(found: EncodedModel) -> dict[str, str]:
    return {row.name: row.encoding for row in found.weights}


def restored(model: ModelProto) -> dict[str, Array]:
    found = Decode().run(Model.of(model))
    return {name: weight.array() for name, weight in found.weights.items()}


def assert_restored(encoded: ModelProto, dense: ModelProto) -> None:
    found = restored(encoded)
    for graph in every_graph(dense.graph):
        for tensor in graph.initializer:
            assert same(found[tensor.name], numpy_helper.to_array(tensor)), tensor.name


def optimized(model: ModelProto, level: str, folder: Path) -> tuple[Counter[str], Any]:
    """Operators that remain after ONNX Runtime's optimization, and a session."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node), session


def assert_folds(encoded: ModelProto, dense: ModelProto, folder: Path) -> None:
    """At every level that folds, what remains is what remains of the dense model, and computes the same to the last bit."""
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 8, 9, 9)).astype(np.float32)}
    for level in LEVELS:
        (ops, session), (expected, reference) = (optimized(model, level, folder) for model in (encoded, dense))
        assert ops == expected
        for got, wanted in zip(session.run(None, feeds), reference.run(None, feeds), strict=True):
            assert np.array_equal(got, wanted)
    got, wanted = (optimized(model, "ORT_DISABLE_ALL", folder)[1].run(None, feeds) for model in (encoded, dense))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("encoding", [name for name in NAMES if name != "dense"])
@pytest.mark.parametrize("mode", ["smallest", "fast"])
def test_onnxruntime_folds_it_and_computes_the_same(encoding: str, mode: str, opset: int, tmp_path: Path) -> None:
    dense = in_pattern(pruned(1, opset)) if encoding == "nm" else pruned(0.1, opset)
    encoded, found = encode(dense, encoding, mode)
    onnx.checker.check_model(encoded, full_check=encoding != "coo")
    assert_folds(encoded, dense, tmp_path)
    assert_restored(encoded, dense)
    assert set(how(found).values()) > {"dense"}
    assert encoded.ByteSize() < 0.8 * dense.ByteSize()


@pytest.mark.parametrize("density", [0.5, 0.3, 0.2, 0.1, 0.05, 0.01])
def test_every_density(density: float, tmp_path: Path) -> None:
    dense = pruned(density)
    for mode in ("smallest", "fast"):
        encoded = encode(dense, "auto", mode)[0]
        assert_folds(encoded, dense, tmp_path)
        assert_restored(encoded, dense)


@settings(max_examples=60)
@given(st.lists(sparse(), min_size=1, max_size=4), st.sampled_from(NAMES), st.sampled_from(MODES), st.booleans())
def test_encode_then_decode_is_the_identity(arrays: list[Array], encoding: str, mode: str, larger: bool) -> None:
    if larger:  # so that decoders pay
        arrays = [np.concatenate([array] * (1 + 20000 // max(array.size, 1))) if array.ndim else array for array in arrays]
    names = [f"w{number}" for number in range(len(arrays))]
    tensors = [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
    nodes = [helper.make_node("Shape", [name], [f"s{name}"]) for name in names]
    outputs = [helper.make_tensor_value_info(f"s{name}", TensorProto.INT64, None) for name in names]
    graph = helper.make_graph(nodes, "g", [], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    found = restored(encode(model, encoding, mode, negative_zeros=True)[0])
    assert all(same(found[name], array) for name, array in zip(names, arrays, strict=True))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", BFLOAT16])
def test_every_float_type(dtype: Any) -> None:
    dtype = np.dtype(dtype)
    array = (planted((64, 64), 0.1) / 40).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    nodes = [helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT), helper.make_node("MatMul", ["x", "v"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 64]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(array, "w")])
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert dense.graph.initializer[0].data_type == kind
    feeds = {"x": np.eye(64, dtype=np.float32)}
    for encoding, mode in (("auto", "smallest"), ("auto", "fast"), ("bitmask", "smallest"), ("coo", "smallest")):
        encoded, found = encode(dense, encoding, mode)
        assert how(found)["w"] != "dense"
        assert_restored(encoded, dense)
        [got] = ort.InferenceSession(encoded.SerializeToString()).run(None, feeds)
        np.testing.assert_array_equal(got, array.astype(np.float32))


def halved(model: ModelProto) -> ModelProto:
    """The same with the nearest float16 of each weight; layers still have float32."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("encoding", ["auto", "bitmask", "nm"])
def test_numbers_that_float16_has_take_two_bytes(encoding: str, opset: int, tmp_path: Path) -> None:
    wide = in_pattern(pruned(1, opset)) if encoding == "nm" else pruned(0.2, opset)
    dense = halved(onnx.ModelProto.FromString(wide.SerializeToString()))
    encoded, found = encode(dense, encoding)
    onnx.checker.check_model(encoded, full_check=True)
    assert_folds(encoded, dense, tmp_path)
    assert_restored(encoded, dense)
    assert encode(encoded, encoding)[0] == encoded
    for row, before in zip(found.weights, encode(wide, encoding)[1].weights, strict=True):
        if row.encoding != "dense":
            assert row.stored < 0.7 * before.stored
    tensor = next(tensor for tensor in dense.graph.initializer if tensor.name == "wide")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = 1 + 2**-11  # one number that it has not
    tensor.CopyFrom(numpy_helper.from_array(array, "wide"))
    mixed, found = encode(dense, encoding)
    assert_folds(mixed, dense, tmp_path)
    assert_restored(mixed, dense)


@pytest.mark.parametrize(("dtype", "point"), [(np.int8, 0), (np.int8, 3), (np.uint8, 128)])
def test_quantised_weights_and_their_zero_point(dtype: Any, point: int, tmp_path: Path) -> None:
    text = """(float[N,8,9,9] x) => (float[N,16,7,7] y) <float scale> {{
      w = DequantizeLinear(q, scale, point)
      y = Conv(x, w)
    }}"""
    text = text.replace("<float scale>", f"<float scale, {np.dtype(dtype).name}[16,8,3,3] q, {np.dtype(dtype).name} point>")
    dense = parse(text.replace("{{", "{").replace("}}", "}"), opset=13)
    array = planted((16, 8, 3, 3), 0.2, np.int8).astype(np.int64) + point
    values = {"q": np.clip(array, -128 if dtype is np.int8 else 0, 127 if dtype is np.int8 else 255).astype(dtype)}
    values |= {"point": np.array(point, dtype), "scale": np.array(0.02, np.float32)}
    for tensor in dense.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    for mode in ("smallest", "fast"):
        encoded, found = encode(dense, mode=mode)
        [row] = [row for row in found.weights if row.name == "q"]
        assert row.encoding != "dense"
        assert row.sparsity == pytest.approx(0.8, abs=0.05)
        assert_restored(encoded, dense)
        assert_folds(encoded, dense, tmp_path)


def test_negative_zeros_become_zeros_unless_they_are_kept() -> None:
    dense = pruned(1)
    for tensor in dense.graph.initializer:
        if len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor) * (planted(tuple(tensor.dims), 0.2, seed=7) != 0)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    cleared, kept = encode(dense)[0], encode(dense, negative_zeros=True)[0]
    assert_restored(kept, dense)
    wide = restored(cleared)["wide"]
    np.testing.assert_array_equal(wide, restored(kept)["wide"])
    assert not np.signbit(wide[wide == 0]).any()
    assert cleared.ByteSize() < 0.6 * kept.ByteSize()


def test_encoding_again_is_encoding_once() -> None:
    once = encode(pruned())[0]
    assert encode(once)[0] == once
    fast = encode(once, mode="fast")[0]
    assert fast == encode(pruned(), mode="fast")[0]


def test_dense_decodes() -> None:
    dense = pruned()
    assert [node.op_type for node in encode(encode(dense)[0], "dense")[0].graph.node] == [n.op_type for n in dense.graph.node]


def test_a_shared_weight_is_made_once(tmp_path: Path) -> None:
    net = "(float[N,8,9,9] x) => (float[N,8,9,9] y) <float[8,8,3,3] w> {\n a = Conv<pads = [1,1,1,1]>(x, w)\n"
    dense = pruned(0.1, net=net + " b = Relu(a)\n y = Conv<pads = [1,1,1,1]>(b, w)\n}")
    encoded = encode(dense)[0]
    assert sum(output == "w" for node in encoded.graph.node for output in node.output) == 1
    assert_folds(encoded, dense, tmp_path)


def test_weights_in_bodies() -> None:
    net = """(bool c, float[N,64] x) => (float[N,64] y) {
      y = If(c) <
        then_branch = g1 () => (float[N,64] a) <float[64,64] w> { a = MatMul(x, w) },
        else_branch = g2 () => (float[N,64] b) <float[64,64] w> { b = Sub(x, w) }
      >
    }"""
    dense = pruned(net=net.replace("Sub(x, w)", "MatMul(x, w)"))
    for at, graph in enumerate(every_graph(dense.graph)):
        for tensor in graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(planted((64, 64), 0.1, seed=at), tensor.name))
    for encoding in ("auto", "coo"):
        encoded, found = encode(dense, encoding)
        assert sum(row.encoding != "dense" for row in found.weights) == 2
        onnx.checker.check_model(encoded)
        x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        for choice in (True, False):
            feeds = {"c": np.array(choice), "x": x}
            got, wanted = (ort.InferenceSession(model.SerializeToString()).run(None, feeds) for model in (encoded, dense))
            np.testing.assert_array_equal(got, wanted)


def test_old_models_list_weights_as_inputs() -> None:
    dense = pruned(opset=11)
    dense.ir_version = 3
    for tensor in dense.graph.initializer:
        dense.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    encoded = encode(dense)[0]
    onnx.checker.check_model(encoded)
    assert [value.name for value in encoded.graph.input] == ["x"]
    assert encoded.ir_version >= 4


def test_an_operator_set_that_lacks_operators_is_refused() -> None:
    dense = pruned(opset=10)
    with pytest.raises(ModelError, match=r"operator set 10 .* takes 11"):
        encode(dense)
    assert "coo" in how(encode(dense, "coo")[1]).values()


def test_a_weight_that_is_an_output_stays() -> None:
    dense = pruned()
    dense.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, [288, 64]))
    encoded, found = encode(dense)
    assert how(found)["wide"] == "dense"
    onnx.checker.check_model(encoded, full_check=True)


def test_sizes_and_positions_stay() -> None:
    dense = parse(
        "(float[N,4] x) => (float[4096] y) <int64[4096] i> { z = Flatten<axis = 0>(x)\n f = Squeeze(z)\n y = Gather(f, i) }"
    )
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(4096, np.int64), "i"))
    assert encode(dense)[0].graph.node == dense.graph.node


def test_what_the_runtime_would_not_fold_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.passes.encode.FOLDED", 4 * 288 * 64 - 1)
    assert FOLDED == 1 << 30
    assert how(encode(pruned())[1])["wide"] == "dense"
    assert how(encode(pruned(), "bitmask")[1])["wide"] == "bitmask"


def test_the_fast_mode_alone_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.BUDGET", (0.0, 0))
    assert how(encode(pruned(), mode="smallest")[1])["wide"] != "dense"
    assert how(encode(pruned(), mode="fast")[1])["wide"] == "dense"
    assert how(encode(pruned(), "bitmask", mode="fast")[1])["wide"] == "bitmask"  # what is asked for is done


def test_large_weights_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.PIECE", 1 << 13)
    for dense in (pruned(0.1), in_pattern(pruned(1))):
        encoded, found = encode(dense)
        assert "Concat" in {node.op_type for node in encoded.graph.node}
        assert_folds(encoded, dense, tmp_path)
        assert_restored(encoded, dense)
        assert how(found)["wide"] != "dense"


def test_external_data_is_read_and_written(tmp_path: Path) -> None:
    dense = pruned()
    onnx.save(dense, tmp_path / "dense.onnx", save_as_external_data=True, size_threshold=0)
    dense = onnx.load(tmp_path / "dense.onnx")
    encoded = Encode().run(Model.of(tmp_path / "dense.onnx")).model
    assert_restored(encoded.to_proto(), dense)


def test_accounts_are_bytes_that_are_written() -> None:
    """Payloads of weights sum up to what is in the file but for small shared constants."""
    dense = pruned(0.2)
    encoded, found = encode(dense)
    rows = [row for row in found.weights if row.encoding != "dense"]
    payload = sum(len(t.raw_data) for t in encoded.graph.initializer if t.name.startswith("sp") and len(t.raw_data) > 100)
    assert sum(row.stored for row in rows) == pytest.approx(payload, rel=0.01)
