"""Which weights stay: the highest scores of all layers, of each, or of cells of channels."""

from __future__ import annotations

import torch

from onnxprune.torch.layers import Layer
from onnxprune.torch.selection import Selection


def scores() -> dict[str, torch.Tensor]:
    return {"a": torch.tensor([[1.0, 2, 3, 4]]).T, "b": torch.tensor([[5.0, 6, 7, 8]]).T}


LAYERS = {name: Layer(name, "MatMul") for name in "ab"}


def test_weights_compete_together_or_in_each_layer() -> None:
    together = Selection(LAYERS, together=True)(scores(), 0.5)
    assert {name: kept[:, 0].tolist() for name, kept in together.items()} == {"a": [False] * 4, "b": [True] * 4}
    alone = Selection(LAYERS, together=False)(scores(), 0.25)
    assert {name: kept[:, 0].tolist() for name, kept in alone.items()} == {key: [False, True, True, True] for key in "ab"}


def test_of_equal_scores_the_first_stay() -> None:
    kept = Selection({"a": LAYERS["a"]}, together=False)({"a": torch.ones(4, 1)}, 0.5)["a"]
    assert kept[:, 0].tolist() == [True, True, False, False]


def test_n_of_m_channels() -> None:
    layer = Layer("w", "Conv")
    values = torch.rand(3, 6, 3, 3)  # the last cell has two channels
    kept = Selection({"w": layer}, together=True, pattern=(1, 4))({"w": values}, 0.9)["w"]
    assert kept[:, :4].sum(1).eq(1).all()
    assert kept[:, 4:].sum(1).eq(1).all()
    assert torch.equal(values[:, :4].argmax(1), kept[:, :4].float().argmax(1))
