"""Which constants are trained."""

from __future__ import annotations

import pytest

from onnxprune.torch import to_module
from trainable import graph

WEIGHTS = [
    ("float[2] w = {1, 2}", "y = Add(x, w)", "weight"),
    ("float w = {2}", "y = Div(x, w)", "constant"),  # a number
    ("float[1] w = {2}", "y = PRelu(x, w)", "weight"),  # a layer's own, whatever its size
    ("float[2] w = {0, -1000}", "y = Add(x, w)", "constant"),  # a mask
    ("float[2] w = {0, -1}", "y = Add(x, w)", "weight"),
    ("float[2] w = {0, 0}", "y = Add(x, w)", "weight"),
    ("float[2] w = {1, 2}", "y = Clip(x, w)", "constant"),
    ("float[2] w = {1, 2}", "a = Identity(w) y = Mul(x, a)", "weight"),
    ("float[2] w = {1, 2}", "a = Add(x, w) y = Clip(a, w)", "constant"),  # read in two ways
    ("float[2] w = {1, 2}, float s = {0.1}", "q = QuantizeLinear(w, s) d = DequantizeLinear(q, s) y = Add(x, d)", "weight"),
    ("int64[1] w = {1}", "y = Unsqueeze(x, w)", "constant"),
]


@pytest.mark.parametrize(("constant", "nodes", "role"), WEIGHTS)
def test_roles(constant: str, nodes: str, role: str) -> None:
    proto = graph(f"(float[N,2] x) => (float[a,b] y) <{constant}> {{ {nodes} }}")
    module = to_module(proto)
    assert module.constants["w"].role.value == role
    assert ("w" in dict(module.named_parameters())) == (role == "weight")


def test_a_layer_that_runs_twice_keeps_its_statistics() -> None:
    constants = ", ".join(f"float[2] {name} = {{{at}, 1}}" for at, name in enumerate(("s", "b", "m", "v"), 1))
    nodes = "a = BatchNormalization(x, s, b, m, v) y = BatchNormalization(a, s, b, m, v)"
    proto = graph(f"(float[N,2] x) => (float[N,2] y) <{constants}> {{ {nodes} }}")
    roles = {name: constant.role.value for name, constant in to_module(proto).constants.items()}
    assert roles == {"s": "weight", "b": "weight", "m": "statistic", "v": "statistic"}
    merged = {name: c.role.value for name, c in to_module(_merged(proto)).constants.items()}
    assert merged == {"s": "weight", "b": "weight", "m": "constant", "v": "constant", "z": "weight"}


def _merged(proto: object) -> object:
    """Two layers whose equal statistics were merged into one."""
    assert hasattr(proto, "graph")
    scale = proto.graph.initializer.add()
    scale.CopyFrom(proto.graph.initializer[0])
    scale.name = "z"
    proto.graph.node[1].input[1] = "z"
    return proto
