"""Int8 models with weights in floating point: they compute the same, and go back to what they were."""

from __future__ import annotations

import numpy as np
import pytest

import int8_nets
import onnxprune
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.runtime.session import Session
from onnxprune.torch.module import to_module
from onnxprune.training.fake_quantization import round_weights, with_float_weights

X = np.random.default_rng(1).standard_normal((32, 4, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module", params=["no", "yes"])
def rounded(request: pytest.FixtureRequest) -> Model:
    recipe = onnxprune.QuantRecipe(reduce_range=request.param)
    return Model.of(onnxprune.quantize(int8_nets.net(), recipe, samples={"x": X}, agreement=False).model)


def integers(model: Model) -> dict[str, np.ndarray]:
    return {name: weight.array() for name, weight in model.weights.items() if weight.array().dtype == np.int8 and weight.size > 1}


def test_it_computes_the_same_and_goes_back_bit_by_bit(rounded: Model) -> None:
    floating = with_float_weights(rounded)
    one, other = (Session(model).run({"x": X})[0] for model in (rounded, floating))
    np.testing.assert_allclose(other, one, atol=1e-6)
    again = round_weights(floating, rounded)
    assert again.to_proto() == rounded.to_proto()


def test_weights_and_biases_are_what_is_trained(rounded: Model) -> None:
    names = set(to_module(with_float_weights(rounded)).weights())
    assert {
        name for name in rounded.weights if rounded.weights[name].dtype == 3 and len(rounded.weights[name].shape) > 1
    } <= names
    assert any(len(with_float_weights(rounded).weights[name].shape) == 1 for name in names), "biases"
    assert not any("scale" in name for name in names)


def test_steps_are_rounded_and_stay_in_range(rounded: Model) -> None:
    """Half a step moves nothing and a whole one does; with 7 bits no weight takes the eighth."""
    floating = with_float_weights(rounded)
    name, before = next((name, array) for name, array in integers(rounded).items() if array.ndim == 4)
    node = next(node for node in rounded.graph.node if node.input[0] == name)
    scale = rounded.weights[node.input[1]].array().reshape(-1, 1, 1, 1)
    most = np.abs(before.astype(int)).max()
    real = floating.weights[name].array()
    for steps, expected in ((0.4, before), (1.0, np.minimum(before.astype(int) + 1, most)), (1000.0, np.full_like(before, most))):
        trained = floating.copy()
        trained.weights[name] = Weight(name, None, (real + steps * scale).astype(np.float32))
        np.testing.assert_array_equal(round_weights(trained, rounded).weights[name].array(), expected)
