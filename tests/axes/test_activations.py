"""Activations of recurrent layers: how they are read, and which keep a unit without weights at zero."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.axes.activations import Activation, activations
from onnxprune.axes.rules import find
from onnxprune.axes.rules.recurrent import GATES
from onnxprune.axes.rules.registry import Refused
from onnxprune.ir.node import NodeView
from onnxprune.runtime.session import inference_session

WIDTH = 3


def recurrent(op: str, names: list[str], **attributes: Any) -> NodeView:
    rows = GATES[op] * WIDTH
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    node = helper.make_node(op, ["x", "w", "r"], ["y"], hidden_size=WIDTH, activations=names, **attributes)
    shapes = {"x": (2, 1, 2), "w": (directions, rows, 2), "r": (directions, rows, WIDTH), "y": (2, directions, 1, WIDTH)}
    return NodeView(node, shapes, {}, {}, 18)


@pytest.mark.parametrize(
    ("op", "names"),
    [
        *(("RNN", [name]) for name in ("Tanh", "Sigmoid", "Affine", "HardSigmoid", "Softplus", "Elu", "ThresholdedRelu")),
        *(("GRU", [*names]) for names in itertools.product(("Sigmoid", "Tanh"), ("HardSigmoid", "Relu"))),
        *(("LSTM", [*names]) for names in itertools.product(("Sigmoid", "Tanh"), ("Softsign", "Softplus"), ("Elu", "Sigmoid"))),
    ],
)
@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_it_is_followed_exactly_if_the_runtime_makes_zeros_of_zeros(op: str, names: list[str], beta: float) -> None:
    numbers: dict[str, Any] = {"activation_alpha": [0.5], "activation_beta": [beta]}
    view = recurrent(op, names, **numbers)
    weights = [
        helper.make_tensor(n, TensorProto.FLOAT, view.shape(at), np.zeros(view.shape(at))) for at, n in ((1, "w"), (2, "r"))
    ]
    node = helper.make_node(op, view.inputs, view.outputs, hidden_size=WIDTH, activations=names, **numbers)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (y,) = inference_session(model).run(None, {"x": np.ones((2, 1, 2), np.float32)})
    rule = find("", op)
    assert rule is not None
    assert isinstance(rule(view), Refused) == bool(y.any())


def test_numbers_go_to_the_functions_that_have_them() -> None:
    names = ["LEAKYRELU", "tanh", "HardSigmoid", "Sigmoid", "Affine", "Elu"]
    view = recurrent("LSTM", names, direction="bidirectional", activation_alpha=[0.5, 0.25], activation_beta=[0.75])
    assert activations(view, 2) == [
        [Activation("leakyrelu", 0.5, 0), Activation("tanh", 0, 0), Activation("hardsigmoid", 0.25, 0.75)],
        [Activation("sigmoid", 0, 0), Activation("affine", 0, 0), Activation("elu", 1, 0)],
    ]


@pytest.mark.parametrize("names", [["Sigmoid"], ["Sigmoid", "Tanh", "Tanh", "Tanh"], ["Sigmoid", "Tanh", "Swish"]])
def test_what_the_standard_does_not_have_is_refused(names: list[str]) -> None:
    view = recurrent("LSTM", names)
    assert activations(view, 1) is None
    rule = find("", "LSTM")
    assert rule is not None
    assert isinstance(rule(view), Refused)
