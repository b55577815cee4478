"""Weights as they were."""

from __future__ import annotations

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.passes import Decode, Encode, Normalize

NET = """(float[N,64] x) => (float[N,64] y) <float[64,64] w> {
  h = MatMul(x, w)
  y = Relu(h)
}"""


def sparse() -> Model:
    model = Model.of(parse(NET))
    array = model.weights["w"].array().copy()
    array[:, ::3], array[1::2] = 0, 0
    model.weights["w"] = model.weights["w"].derived(array.shape, lambda _: array)
    return model


def test_the_graph_is_the_one_before() -> None:
    model = sparse()
    encoded = Encode().run(model).model
    assert len(encoded.graph.node) > 2
    decoded = Decode().run(encoded)
    assert decoded.graph == model.graph
    assert (decoded.weights["w"].array() == model.weights["w"].array()).all()
    assert decoded.weights.keys() == {"w"}


def test_a_model_without_decoders_is_left_alone() -> None:
    model = sparse()
    assert Decode().run(model) is model


def test_encoded_models_can_be_pruned_like_others() -> None:
    """Normalization decodes first, so that the weights are weights again."""
    model = sparse()
    encoded = Encode().run(model).model.to_proto()
    assert Normalize().run(Model.of(encoded)).model.weights.keys() == {"w"}
    assert [group.id for group in analyze(encoded).coupling.groups] == [
        group.id for group in analyze(model.to_proto()).coupling.groups
    ]
