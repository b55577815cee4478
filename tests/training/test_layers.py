"""Layers as patterns see them, whatever the operator, and new weights for all kinds of constants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxprune import OptionError
from onnxprune.torch import to_module
from onnxprune.training.layers import prunable_layers, reinitialize
from trainable import filled, graph

MODELS = Path(__file__).resolve().parents[2] / "models"


CASES = {
    "conv": ("(float[1,4,5,5] x) => (float[1,6,3,3] y) { y = Conv <group = 2> (x, w) }", (6, 2, 3, 3), (2, 2, 9, 3)),
    "transposed": (
        "(float[1,4,3,3] x) => (float[1,6,5,5] y) { y = ConvTranspose <group = 2> (x, w) }",
        (4, 3, 3, 3),
        (2, 2, 9, 3),
    ),
    "gemm": ("(float[2,4] x) => (float[2,3] y) { y = Gemm (x, w) }", (4, 3), (1, 4, 1, 3)),
    "gemm flipped": ("(float[2,4] x) => (float[2,3] y) { y = Gemm <transB = 1> (x, w) }", (3, 4), (1, 4, 1, 3)),
    "matmul": ("(float[2,4] x) => (float[2,3] y) { y = MatMul (x, w) }", (4, 3), (1, 4, 1, 3)),
    "stacked": ("(float[5,2,4] x) => (float[5,2,3] y) { y = MatMul (x, w) }", (5, 4, 3), (5, 4, 1, 3)),
    "left": ("(float[4,2] x) => (float[3,2] y) { y = MatMul (w, x) }", (3, 4), (1, 4, 1, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_are_what_is_summed_over(name: str) -> None:
    text, shape, spread = CASES[name]
    module = to_module(filled(text, w=shape))
    layer = prunable_layers(module)["w"]
    weight = module.value_of("w").detach()
    assert layer.spread(weight).shape == spread
    assert torch.equal(layer.gather(layer.spread(weight), weight), weight)
    assert layer.fan_in(weight) == spread[1] * spread[2]
    # An output hangs on its own column: without that it is zero.
    x = torch.rand([int(size) for size in text[len("(float[") : text.index("]")].split(",")])
    with torch.no_grad():
        column = torch.zeros(spread)
        column[:, :, :, 0] = 1
        module.value_of("w").mul_(1 - layer.gather(column, weight))
        found = module(x)
    axis = {"left": 0, "stacked": 2}.get(name, 1)
    dead = found.abs().amax([at for at in range(found.dim()) if at != axis]) == 0
    expected = [True, False, False] * spread[0] if axis == 1 else [True, False, False]
    assert dead.tolist() == expected


def test_layers_can_be_protected() -> None:
    module = to_module(MODELS / "digits.onnx")
    every = prunable_layers(module)
    assert "stem.0.weight" in every
    assert all(len(module.value_of(name).shape) > 1 for name in every)
    assert "stem.0.weight" not in prunable_layers(module, ["stem.*"])
    with pytest.raises(OptionError, match="layers are protected"):
        prunable_layers(module, ["*"])
    with pytest.raises(OptionError, match="there is no convolution or matrix product"):
        prunable_layers(to_module(graph("(float[2,4] x) => (float[2,4] y) { y = Neg (x) }")))


def test_new_weights() -> None:
    module = to_module(MODELS / "digits__bn.onnx")
    old = {name: w.detach().clone() for name, w in module.weights().items()}
    reinitialize(module, 0)
    for name, layer in prunable_layers(module).items():
        weight = module.value_of(name).detach()
        assert not torch.equal(weight, old[name])
        if weight.numel() > 500:
            assert float(weight.std()) == pytest.approx((2 / layer.fan_in(weight)) ** 0.5, rel=0.15)
    flat = {name: w.detach() for name, w in module.weights().items() if w.dim() == 1}
    assert {float(v) for w in flat.values() for v in w.unique()} == {0.0, 1.0}
    for name, buffer in module.named_buffers():
        assert buffer.eq(1 if "var" in name else 0).all()
    again = to_module(MODELS / "digits__bn.onnx")
    reinitialize(again, 0)
    assert all(torch.equal(w, again.weights()[name]) for name, w in module.weights().items())
