"""The noise of each layer's own rounding."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.rounding import rounding_noise
from onnxprune.driver.progress import Stages
from onnxprune.driver.quantize import Quantizer
from onnxprune.ir.model import Model
from onnxprune.options.quantize import QuantRecipe
from onnxprune.runtime.session import Session
from optimizable import LINEAR, X, net


def measured(spoilt: str = "") -> dict[str, float]:
    proto = net()
    for tensor in proto.graph.initializer:
        if tensor.name == spoilt:
            array = numpy_helper.to_array(tensor).copy()
            array[:, 0, 0, 0] = 40.0  # one weight of each channel takes the whole range
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    model = Model.of(proto)
    samples = open_samples({"x": X}, model.inputs)
    with Quantizer(model, QuantRecipe(), samples, Stages()) as quantizer:
        return rounding_noise(quantizer.prepared, quantizer.form(()).model, [*LINEAR, "no such node"], samples)


def test_every_layer_has_its_noise() -> None:
    found = measured()
    assert found.keys() == set(LINEAR)
    assert all(0 < noise < 0.01 for noise in found.values())


def test_a_layer_whose_weights_round_badly_stands_out() -> None:
    fine, spoilt = measured(), measured("w2")
    assert max(spoilt, key=lambda name: spoilt[name]) == "second"
    assert spoilt["first"] == pytest.approx(fine["first"])  # the noise of a layer is its own
    assert spoilt["second"] > 2 * fine["second"]


def test_the_first_layer_as_computed_by_hand() -> None:
    model = Model.of(net())
    samples = open_samples({"x": X[:8]}, model.inputs)
    with Quantizer(model, QuantRecipe(), samples, Stages()) as quantizer:
        rounded = quantizer.form(()).model
        found = rounding_noise(quantizer.prepared, rounded, ["first"], samples)["first"]
    whole = Session(model, ["a"]).run({"x": X[:8]})[0]
    read = {name: node for node in rounded.graph.node for name in node.output}
    conv = next(node for node in rounded.graph.node if node.name == "first")
    x, w, b = Session(rounded, list(conv.input)).run({"x": X[:8]})
    assert read[conv.input[0]].op_type == "DequantizeLinear"
    assert np.abs(x - X[:8]).max() > 0
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    ours = np.einsum("ncijkl,ockl->noij", windows, w) + b[:, None, None]
    assert found == pytest.approx(float(np.square(ours - whole).sum() / np.square(whole).sum()), rel=1e-3)
