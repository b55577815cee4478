"""Layers, and which of them are slower in int8."""

from __future__ import annotations

import pytest

from onnxprune.driver.levers.layers import layers_of, slower
from onnxprune.ir.model import Model
from onnxprune.latency.node_times import NodeTime
from optimizable import LINEAR, net


def times(*ms: float, op: str = "Conv", suffix: str = "_nchwc", size: int = 1000) -> list[NodeTime]:
    return [NodeTime(f"{name}{suffix}", op, one, size) for name, one in zip(LINEAR, ms, strict=True)]


def test_a_layer_is_a_linear_node_and_what_follows() -> None:
    layers = layers_of(Model.of(net()))
    assert [layer.name for layer in layers] == list(LINEAR)
    assert layers[0].nodes == ("first", "after_ra")
    assert layers[2].values == ("c", "rc", "p", "f")


def test_a_node_without_a_name_is_called_as_its_weight() -> None:
    proto = net()
    for node in proto.graph.node:
        node.name = ""
    assert [layer.nodes for layer in layers_of(Model.of(proto))] == [("w1",), ("w2",), ("w3",), ("w4",)]


def test_a_name_that_two_nodes_have_names_neither() -> None:
    proto = net()
    for node in proto.graph.node:
        node.name = "same"
    assert [layer.name for layer in layers_of(Model.of(proto))] == ["w1", "w2", "w3", "w4"]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.0, ["second"]),  # borders cost nothing
        (0.1, ["second"]),
        (0.3, ["first", "second"]),  # a lone first layer in int8 does not pay for its border
        (10.0, list(LINEAR)),
    ],
)
def test_layers_stay_where_that_takes_the_least_time_with_the_borders(rate: float, expected: list[str]) -> None:
    """In int8 the second layer is slower by 3; the first saves 0.5, the others 0.9 each."""
    layers = layers_of(Model.of(net()))
    border = NodeTime("x_QuantizeLinear", "QuantizeLinear", rate * 4000 / 1000, 1000)
    found = slower(layers, times(1, 1, 1, 1), [border, *times(0.5, 4, 0.1, 0.1, suffix="_token_3")])
    assert [layer.name for layer in found] == expected


def test_times_of_nodes_without_a_known_name_are_those_of_the_layer_before() -> None:
    layers = layers_of(Model.of(net()))
    rounded = times(0.1, 0.1, 0.1, 0.1)
    rounded.insert(2, NodeTime("Transpose_token_7", "Transpose", 5.0, 1000))
    assert [layer.name for layer in slower(layers, times(1, 1, 1, 1), rounded)] == ["second"]


def test_no_layers() -> None:
    assert slower([], [], []) == []
