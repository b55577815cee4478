"""Decoders found in a graph, whatever other tools did to it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper, version_converter

from codec import planted, same
from nets import parse
from onnxprune.ir.model import Model
from onnxprune.passes import Encode
from onnxprune.sparse.encoding.recognize import Decoders, decode_weights

NET = """(float[N,64] x) => (float[N,64] y) <float[64,64] a, float[64,64] b> {
  h = MatMul(x, a)
  y = MatMul(h, b)
}"""


def weighted() -> ModelProto:
    model = parse(NET, opset=13)
    for seed, tensor in enumerate(model.graph.initializer):
        tensor.CopyFrom(numpy_helper.from_array(planted((64, 64), 0.2, seed=seed), tensor.name))
    return model


def encoded(encoding: str = "auto") -> tuple[ModelProto, ModelProto]:
    dense = weighted()
    return dense, Encode(encoding).run(Model.of(dense)).model.to_proto()


def assert_decoded(dense: ModelProto, model: ModelProto) -> None:
    found = Model.of(model)
    assert sorted(decode_weights(found)) == ["a", "b"]
    assert [node.op_type for node in found.graph.node] == ["MatMul", "MatMul"]
    for tensor in dense.graph.initializer:
        assert same(found.weights[tensor.name].array(), numpy_helper.to_array(tensor))


def test_nodes_and_their_constants_are_gone() -> None:
    dense, model = encoded()
    assert_decoded(dense, model)
    found = Model.of(model)
    decode_weights(found)
    assert found.weights.keys() == {"a", "b"}
    assert decode_weights(found) == []


@pytest.mark.parametrize("family", ["bitmask", "delta", "nm"])
def test_shapes_and_types_are_known_without_decoding(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    found = Decoders(Model.of(encoded(family)[1]))
    monkeypatch.setattr(Decoders, "_value", lambda *_: pytest.fail("computed"))
    assert {(name, weight.shape, weight.dtype) for name, weight in found.weights.items()} == {
        ("a", (64, 64), 1),
        ("b", (64, 64), 1),
    }
    assert found.families == {"a": family, "b": family}


def test_after_other_tools() -> None:
    import onnx_graphsurgeon as gs

    dense, model = encoded()
    assert_decoded(dense, version_converter.convert_version(model, 21))
    assert_decoded(dense, gs.export_onnx(gs.import_onnx(model)))
    assert_decoded(dense, onnx.compose.add_prefix(model, "", rename_nodes=False))


def test_names_do_not_matter() -> None:
    dense, model = encoded()
    renamed = onnx.compose.add_prefix(model, "p/")
    found = Model.of(renamed)
    assert sorted(decode_weights(found)) == ["p/a", "p/b"]
    assert same(found.weights["p/a"].array(), numpy_helper.to_array(dense.graph.initializer[0]))


def test_other_nodes_on_constants_are_left_alone() -> None:
    model = Model.of(parse("(float[N,4] x) => (float[N,4] y) <float[4] w, float[4] v> { m = Mul(w, v)\n y = Add(x, m) }"))
    assert decode_weights(model) == []
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add"]


def test_constants_that_something_else_reads_stay() -> None:
    model = encoded()[1]
    name = next(tensor.name for tensor in model.graph.initializer if numpy_helper.to_array(tensor).dtype == np.float32)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    found = Model.of(model)
    decode_weights(found)
    assert name in found.weights


def test_what_reads_a_weight_is_no_part_of_its_decoder() -> None:
    dense = parse("(float[N,64] x) => (float[N,64] y) <float[64,64] w> { t = Transpose<perm = [1, 0]>(w)\n y = MatMul(x, t) }")
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(planted((64, 64), 0.1), "w"))
    found = Model.of(Encode().run(Model.of(dense)).model.to_proto())
    nameless = found.copy()
    assert decode_weights(found) == ["w"]
    assert list(found.graph.node) == list(dense.graph.node)
    for node in nameless.graph.node:
        node.name = ""
    assert decode_weights(nameless) == ["t"]
    assert same(nameless.weights["t"].array(), found.weights["w"].array().T)
