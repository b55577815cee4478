"""Random graphs over sequences of any length: sizes are computed, branches depend on them, weights are shared or made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from test_random_graphs import Net

__all__ = ["LAYERS", "OpenNet", "open_models", "stacked"]

WIDTH = 24
"""Channels of every value [N, T, 24]: a matrix of them with zeros is worth encoding."""


class OpenNet(Net):
    """A graph under construction; `x` is [N, T, 24], and only its own graph knows T."""

    def matrix(self, rows: int = WIDTH, columns: int = WIDTH, zeros: float = 0.0) -> str:
        array = self.rng.standard_normal((rows, columns)) / np.sqrt(rows)
        array[self.rng.random(array.shape) < zeros] = 0
        return self.const(array, np.float32)

    def length(self) -> str:
        """T, as a vector of one entry."""
        return str(self.node("Slice", self.node("Shape", self.x), self.const([1]), self.const([2])))

    def batch(self) -> str:
        return str(self.node("Slice", self.node("Shape", self.x), self.const([0]), self.const([1])))

    def at_least(self, value: str, least: int = 1) -> str:
        return str(self.node("Max", value, self.const([least])))

    def linear(self, weight: str) -> None:
        self.x = self.node(self.pick("Relu", "Tanh"), self.node("Add", self.node("MatMul", self.x, weight), self.weight(WIDTH)))


def dense(net: OpenNet) -> None:
    net.linear(net.matrix())


def sparse(net: OpenNet) -> None:
    net.linear(net.matrix(zeros=0.85))


def masked(net: OpenNet) -> None:
    """As torch.nn.utils.prune leaves it."""
    mask = net.const(net.rng.random((WIDTH, WIDTH)) < 0.2, np.float32)
    net.linear(net.node("Mul", net.matrix(), mask))


def tied(net: OpenNet) -> None:
    """One weight, read in several ways."""
    weight = net.matrix()
    for _ in range(2):
        net.linear(net.node(net.pick("Identity", "Transpose"), weight))
    net.linear(weight)


def generated(net: OpenNet) -> None:
    """A weight that nodes make, as decoders do, with attributes that decoders do not have."""
    if net.pick(True, False):
        steps = net.const(net.rng.standard_normal((WIDTH, WIDTH)) / WIDTH, np.float32)
        net.linear(net.node("CumSum", steps, net.const(0), reverse=net.pick(1, 0), exclusive=net.pick(0, 1)))
        return
    zeros = net.node("ConstantOfShape", net.const([WIDTH, WIDTH]))
    rows = net.const(net.rng.integers(0, WIDTH, (3, WIDTH)))
    values = net.const(net.rng.standard_normal((3, WIDTH)), np.float32)
    net.linear(net.node("ScatterElements", zeros, rows, values, reduction=net.pick("none", "add")))


def convolved(net: OpenNet) -> None:
    turned = net.node("Transpose", net.x, perm=[0, 2, 1])
    made = net.node("Conv", turned, net.weight(WIDTH, WIDTH, 3), net.weight(WIDTH), pads=[1, 1])
    net.x = net.node("Transpose", net.node("Relu", made), perm=[0, 2, 1])


def windows(net: OpenNet) -> None:
    """Padded to whole windows of four, each of which becomes one step."""
    length, four = net.length(), net.const([4])
    rest = net.node("Mod", net.node("Sub", four, net.node("Mod", length, four)), four)
    pads = net.node("Concat", net.const([0, 0, 0, 0]), rest, net.const([0]), axis=0)
    padded = net.node("Pad", net.x, pads)
    cut = net.node("Reshape", padded, net.node("Concat", net.batch(), net.const([-1, 4 * WIDTH]), axis=0))
    net.x = net.node("MatMul", cut, net.matrix(4 * WIDTH))


def copies(net: OpenNet) -> None:
    """Means, as often as whole hundreds go into the length, and at least once."""
    count = net.at_least(net.node("Div", net.length(), net.const([100])))
    mean = net.node("ReduceMean", net.x, net.const([1]), keepdims=1)
    net.x = net.node("Expand", mean, net.node("Concat", net.batch(), count, net.const([WIDTH]), axis=0))


def first_half(net: OpenNet) -> None:
    half = net.at_least(net.node("Div", net.length(), net.const([2])))
    net.x = net.node("Slice", net.x, net.const([0]), half, net.const([1]))


def positions(net: OpenNet) -> None:
    end = net.node("Squeeze", net.length(), net.const([0]))
    steps = net.node("Cast", net.node("Range", net.const(0), end, net.const(1)), to=TensorProto.FLOAT)
    net.x = net.node("Add", net.x, net.node("Unsqueeze", net.node("Sin", steps), net.const([0, 2])))


def attention(net: OpenNet) -> None:
    """With a causal mask as large as the sequence, and a scale that depends on its length."""
    length = net.length()
    scores = net.node("MatMul", net.x, net.node("Transpose", net.x, perm=[0, 2, 1]))
    root = net.node("Sqrt", net.node("Cast", length, to=TensorProto.FLOAT))
    low = helper.make_tensor("low", TensorProto.FLOAT, [1], [-1e4])
    square = net.node("ConstantOfShape", net.node("Concat", length, length, axis=0), value=low)
    mask = net.node("Trilu", square, net.const(1), upper=1)
    weights = net.node("Softmax", net.node("Add", net.node("Div", scores, root), mask), axis=-1)
    net.x = net.node("MatMul", net.node("MatMul", weights, net.x), net.matrix())


def branch(net: OpenNet) -> None:
    """Short sequences go one way, long ones another."""
    long = net.node("Greater", net.node("Squeeze", net.length(), net.const([0])), net.const(10))
    bodies = {}
    for way, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        made = f"{way}{len(net.nodes)}"
        result = helper.make_tensor_value_info(made, TensorProto.FLOAT, None)
        bodies[way] = helper.make_graph([helper.make_node(op, [net.x], [made])], way, [], [result])
    net.x = net.node("If", long, **bodies)


LAYERS: tuple[Callable[[OpenNet], None], ...] = (
    dense, sparse, masked, tied, generated, convolved, windows, copies, first_half, positions, attention, branch,
)  # fmt: skip


def stacked(net: OpenNet, *layers: Callable[[OpenNet], None], squeezed: bool = False) -> ModelProto:
    """A model of layers; ``squeezed`` leaves out every axis of its output that has one position, at whatever size it runs."""
    for layer in layers:
        layer(net)
    head = net.node("MatMul", net.x, net.matrix(columns=4))
    net.nodes.append(helper.make_node("Squeeze" if squeezed else "Identity", [head], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, "open", [x], [y], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@st.composite
def open_models(draw: st.DrawFn) -> ModelProto:
    """Some layers in any order."""
    layers = draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5))
    return stacked(OpenNet(draw), *layers, squeezed=draw(st.booleans()))
