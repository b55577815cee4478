"""The law on random graphs with control flow: random layers in branches, around loops and along scans, inside each other too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from nets import assert_same_values
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize
from test_random_graphs import LAYERS, SIDE, Net, check, dense


class FlowNet(Net):
    """A graph under construction whose nodes may go into a body; names are unique only within the main graph and one body."""

    depth = 0
    made = 0

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        self.made += 1
        names = [f"v{self.made}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def body(
        self, inputs: Sequence[tuple[str, int]], make: Callable[[], Sequence[str]], kinds: Sequence[int], channels: int
    ) -> GraphProto:
        """A body; constants that it makes are its own or the main graph's. What is returned passes through an Identity."""
        own = self.pick(True, False)
        outer, self.nodes, outer_weights = self.nodes, [], self.weights
        self.weights = [] if own else self.weights
        self.depth += 1
        results = [self.node("Identity", name) for name in make()]
        self.depth -= 1
        nodes, self.nodes = self.nodes, outer
        constants, self.weights = (self.weights, outer_weights) if own else ([], self.weights)
        given_values = [declare(*value, channels) for value in inputs]
        returned = [declare(*value, channels) for value in zip(results, kinds, strict=True)]
        return helper.make_graph(nodes, "body", given_values, returned, constants)

    def const(self, values: Any, dtype: Any = np.int64) -> str:
        name = super().const(values, dtype)
        self.made += 1
        self.weights[-1].name = f"{name}_{self.made}"
        return self.weights[-1].name

    def some_layers(self) -> None:
        """One or two layers on the present value."""
        for layer in self.draw(st.lists(st.sampled_from(LAYERS + FLOW if self.depth < 3 else LAYERS), min_size=1, max_size=2)):
            layer(self)


def declare(name: str, kind: int, channels: int) -> ValueInfoProto:
    """An image, a number or a condition; onnxruntime wants to know the shapes of what scans return."""
    return helper.make_tensor_value_info(name, kind, [None, channels, SIDE, SIDE] if kind == TensorProto.FLOAT else [])


def branch(net: Any) -> None:
    start, channels, out = net.x, net.channels, net.pick(2, 3, 4)
    sides = []
    for _ in range(2):
        net.x, net.channels = start, channels

        def side() -> list[str]:
            net.some_layers()
            return [net.conv(net.x, net.channels, out)]

        sides.append(net.body([], side, [TensorProto.FLOAT], out))
    net.x, net.channels = net.node("If", net.pick("flag", "other"), then_branch=sides[0], else_branch=sides[1]), out


def loop(net: Any) -> None:
    start, channels = net.x, net.channels
    stacks = net.pick(True, False)
    number, going, carried = (f"{name}{net.made}" for name in ("i", "going", "h"))

    def step() -> list[str]:
        net.x = carried
        net.some_layers()
        back = net.conv(net.x, net.channels, channels)
        result = net.node(net.pick("Add", "Mul"), back, carried) if net.pick(True, False) else net.node("Tanh", back)
        return [going, result, *([net.node("Relu", back)] if stacks else [])]

    inputs = [(number, TensorProto.INT64), (going, TensorProto.BOOL), (carried, TensorProto.FLOAT)]
    kinds = [TensorProto.BOOL, TensorProto.FLOAT, TensorProto.FLOAT][: 2 + stacks]
    body = net.body(inputs, step, kinds, channels)
    limit = net.const(2) if stacks else "n"  # onnxruntime does not know the shape of what is stacked no times
    results = net.node("Loop", limit, "", start, outputs=1 + stacks, body=body)
    net.x, net.channels = results, channels
    if stacks:
        final, all_of_them = results
        total = net.node("ReduceSum", all_of_them, net.const([0]), keepdims=0)
        net.x = net.node("Add", final, net.conv(total, channels, channels))


def scan(net: Any) -> None:
    start, channels, axis = net.x, net.channels, net.pick(0, 1, -1)
    pair = [net.node("Unsqueeze", value, net.const([axis])) for value in (start, net.node("Tanh", start))]
    steps = net.node("Concat", *pair, axis=axis)
    state, one = (f"{name}{net.made}" for name in ("s", "x"))

    def step() -> list[str]:
        net.x = one
        net.some_layers()
        back = net.conv(net.x, net.channels, channels)
        return [net.node("Add", back, state), net.node("Relu", back)]

    body = net.body([(state, 1), (one, 1)], step, [1, 1], channels)
    back = net.pick(0, 1, -1)
    final, stacked = net.node(
        "Scan", start, steps, outputs=2, num_scan_inputs=1, scan_input_axes=[axis], scan_output_axes=[back],
        scan_input_directions=[net.pick(0, 1)], body=body,
    )  # fmt: skip
    total = net.node("ReduceSum", stacked, net.const([back]), keepdims=0)
    net.x, net.channels = net.node("Add", final, total), channels


FLOW: tuple[Callable[[Any], None], ...] = (branch, loop, scan)


@st.composite
def models(draw: st.DrawFn) -> ModelProto:
    """A convolution, layers of which some control others, and a head."""
    net = FlowNet(draw)
    dense(net)
    draw(st.sampled_from(FLOW))(net)
    net.some_layers()
    net.x = net.conv(net.x, net.channels, 2)
    net.nodes.append(helper.make_node("Identity", [net.x], ["y"]))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),
        *(helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("flag", "other")),
        helper.make_tensor_value_info("n", TensorProto.INT64, []),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, SIDE, SIDE])
    graph = helper.make_graph(net.nodes, "random", inputs, [output], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


@settings(max_examples=40)
@given(models(), st.integers(0, 2**16), st.sampled_from([0.3, 1.0]))
def test_pruned_is_masked(model: ModelProto, seed: int, share: float) -> None:
    check(model, seed, share)


@settings(max_examples=15)
@given(models())
def test_normalised_computes_the_same(model: ModelProto) -> None:
    assert_same_values(Normalize().run(Model.of(model)).model, Model.of(model))
