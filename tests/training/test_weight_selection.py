"""Which weights stay: the highest scores of all layers, of each, or of cells of channels."""

from __future__ import annotations

import torch

from onnxprune.sparse.patterns import parse_pattern
from onnxprune.training.layers import PrunableLayer
from onnxprune.training.weight_selection import WeightSelection


def scores() -> dict[str, torch.Tensor]:
    return {"a": torch.tensor([[1.0, 2, 3, 4]]).T, "b": torch.tensor([[5.0, 6, 7, 8]]).T}


LAYERS = {name: PrunableLayer(name, "MatMul") for name in "ab"}


def test_weights_compete_together_or_in_each_layer() -> None:
    together = WeightSelection(LAYERS, "global")(scores(), 0.5)
    one = {"a": [False, False, False, True], "b": [False, True, True, True]}  # no layer vanishes
    assert {name: kept[:, 0].tolist() for name, kept in together.items()} == one
    alone = WeightSelection(LAYERS, "uniform")(scores(), 0.25)
    assert {name: kept[:, 0].tolist() for name, kept in alone.items()} == {key: [False, True, True, True] for key in "ab"}


def test_of_equal_scores_the_first_stay() -> None:
    kept = WeightSelection({"a": LAYERS["a"]}, "uniform")({"a": torch.ones(4, 1)}, 0.5)["a"]
    assert kept[:, 0].tolist() == [True, True, False, False]


def test_n_of_m_channels() -> None:
    layer = PrunableLayer("w", "Conv")
    values = torch.rand(3, 6, 3, 3)  # the last cell has two channels
    kept = WeightSelection({"w": layer}, "global", parse_pattern("1:4"))({"w": values}, 0.9)["w"]
    assert kept[:, :4].sum(1).eq(1).all()
    assert kept[:, 4:].sum(1).eq(1).all()
    assert torch.equal(values[:, :4].argmax(1), kept[:, :4].float().argmax(1))


def test_small_layers_stay_whole_where_shares_fall_with_size() -> None:
    """By the sums of sizes of a kernel [9 outputs of 1 channel each] and of a matrix; a depthwise kernel is hardly touched."""
    layers = {"deep": PrunableLayer("deep", "Conv", groups=9), "wide": PrunableLayer("wide", "Conv")}
    scores = {"deep": torch.rand(9, 1, 3, 3), "wide": torch.rand(30, 30, 1, 1)}
    kept = WeightSelection(layers, "erk")(scores, 0.8)
    assert sum(int(one.sum()) for one in kept.values()) == round(0.2 * (81 + 900))
    assert kept["deep"].float().mean() > 0.8
    assert kept["wide"].float().mean() < 0.2


def test_magnitudes_of_layers_are_compared_whatever_their_scale() -> None:
    scores = {name: torch.rand(50, 1, generator=torch.Generator().manual_seed(at)) for at, name in enumerate("ab")}
    once = WeightSelection(LAYERS, "lamp")(scores, 0.6)
    again = WeightSelection(LAYERS, "lamp")({"a": scores["a"] * 1000, "b": scores["b"]}, 0.6)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_no_layer_vanishes() -> None:
    kept = WeightSelection(LAYERS, "global")({"a": torch.rand(100, 1) - 5, "b": torch.rand(100, 1)}, 0.9)
    assert {name: int(one.sum()) for name, one in kept.items()} == {"a": 2, "b": 18}


def test_blocks() -> None:
    layer = PrunableLayer("w", "MatMul")
    kept = WeightSelection({"w": layer}, "uniform", parse_pattern("2x3"))({"w": torch.rand(6, 8)}, 0.5)["w"]
    blocks = kept.reshape(2, 3, 4, 2).sum((1, 3))
    assert sorted(blocks.unique().tolist()) == [0, 6]
    assert int(kept.sum()) == 24
