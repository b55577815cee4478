"""The law on random graphs: whatever layers are stacked and whatever is removed, the pruned model is the masked one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from nets import both
from onnxprune.driver.prune import analyze
from onnxprune.verify import law

SIDE = 4
"""Height and width of every image; the batch is dynamic."""


class Net:
    """A graph under construction; `channels` of the present value `x` [N, channels, 4, 4]."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.x, self.channels = "x", 3
        self.rng = np.random.default_rng(0)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" if i else f"v{len(self.nodes)}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, *shape: int, positive: bool = False) -> str:
        array = self.rng.uniform(0.5, 1.5, shape) if positive else self.rng.standard_normal(shape)
        inner = max(int(np.prod(shape[1:])), 1) if len(shape) > 1 else 1
        return self.const(array / (1 if positive else np.sqrt(inner)), np.float32)

    def const(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def conv(self, x: str, channels: int, out: int, *, group: int = 1, kernel: int = 1, bias: bool = False) -> str:
        inputs = [x, self.weight(out, channels // group, kernel, kernel), *([self.weight(out)] if bias else [])]
        return str(self.node("Conv", *inputs, group=group, pads=[kernel // 2] * 4))

    def divisor(self, size: int) -> int:
        return int(self.pick(*(d for d in range(1, size + 1) if size % d == 0)))


def dense(net: Net) -> None:
    out = net.pick(2, 3, 4, 6, 8, 12)
    net.x = net.conv(net.x, net.channels, out, kernel=net.pick(1, 3), bias=net.pick(True, False))
    net.channels = out


def grouped(net: Net) -> None:
    group = net.divisor(net.channels)
    out = group * net.pick(1, 2, 3)
    net.x = net.conv(net.x, net.channels, out, group=group, kernel=net.pick(1, 3), bias=net.pick(True, False))
    net.channels = out


def transposed(net: Net) -> None:
    group = net.divisor(net.channels)
    each = net.pick(1, 2, 3)
    net.x = net.node("ConvTranspose", net.x, net.weight(net.channels, each, 1, 1), net.weight(each * group), group=group)
    net.channels = each * group


def unary(net: Net) -> None:
    net.x = net.node(
        net.pick("Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Softplus", "Neg", "HardSigmoid", "Cos"), net.x
    )


def batch_norm(net: Net) -> None:
    c = net.channels
    net.x = net.node("BatchNormalization", net.x, net.weight(c), net.weight(c), net.weight(c), net.weight(c, positive=True))


def affine(net: Net) -> None:
    shape = net.pick((net.channels, 1, 1), (1, net.channels, 1, 1), (1,), (SIDE, SIDE), ())
    net.x = net.node(net.pick("Mul", "Add", "Sub", "PRelu", "Max"), net.x, net.weight(*shape))


def pool(net: Net) -> None:
    net.x = net.node(net.pick("AveragePool", "MaxPool"), net.x, kernel_shape=[3, 3], pads=[1] * 4)


def residual(net: Net) -> None:
    start, channels = net.x, net.channels
    for _ in range(net.pick(0, 1)):
        net.pick(dense, grouped, unary, batch_norm)(net)
    back = net.conv(net.x, net.channels, channels, kernel=net.pick(1, 3))
    net.x, net.channels = net.node(net.pick("Add", "Mul", "Sub", "Max"), back, start), channels


def concat(net: Net) -> None:
    a, b = net.pick(1, 2, 5), net.pick(2, 3)
    parts = [net.conv(net.x, net.channels, a), net.conv(net.x, net.channels, b), *net.pick((), (net.x,))]
    total = a + b + (net.channels if len(parts) == 3 else 0)
    net.x, net.channels = net.node("Concat", *parts, axis=1), total


def split(net: Net) -> None:
    if net.channels < 2:
        return
    at = net.pick(*range(1, net.channels))
    sizes = [at, net.channels - at]
    a, b = net.node("Split", net.x, net.const(sizes), outputs=2, axis=1)
    form = net.pick("swap", "one", "apart")
    if form == "swap":
        net.x = net.node("Concat", b, a, axis=1)
    elif form == "one":
        net.x, net.channels = b, sizes[1]
    else:
        out = net.pick(2, 4)
        net.x, net.channels = net.node("Add", net.conv(a, at, out), net.conv(b, sizes[1], out)), out


def gated(net: Net) -> None:
    if net.channels % 2:
        return
    a, b = net.node("Split", net.x, outputs=2, axis=1, num_outputs=2)
    net.x, net.channels = net.node("Mul", a, net.node("Sigmoid", b)), net.channels // 2


def cut(net: Net) -> None:
    begin = net.pick(*range(net.channels))
    end = net.pick(*range(begin + 1, net.channels + 1))
    net.x = net.node("Slice", net.x, net.const([begin]), net.const([end]), net.const([1]), net.const([1]))
    net.channels = end - begin


def pad(net: Net) -> None:
    before, after = net.pick(0, 1, 2), net.pick(0, 2)
    inputs = [net.x, net.const([0, before, 0, 0, 0, after, 0, 0])]
    net.x = net.node("Pad", *inputs, *net.pick((), (net.const(1.5, np.float32),)))
    net.channels += before + after


def shuffle(net: Net) -> None:
    group = net.divisor(net.channels)
    apart = net.node("Reshape", net.x, net.const([0, group, net.channels // group, SIDE, SIDE]))
    turned = net.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
    net.x = net.node("Reshape", turned, net.const([0, net.channels, SIDE, SIDE]))


def gate(net: Net) -> None:
    middle = net.pick(1, 2, 4)
    squeezed = net.node("GlobalAveragePool", net.x)
    hidden = net.node("Relu", net.conv(squeezed, net.channels, middle, bias=True))
    net.x = net.node("Mul", net.x, net.node("Sigmoid", net.conv(hidden, middle, net.channels)))


def tokens(net: Net) -> None:
    """Channels last, a product, back: the shape is spelled by constants or computed from the input."""
    middle, out = net.pick(2, 6), net.pick(2, 4)
    flat = net.node("Reshape", net.x, net.const(net.pick([0, net.channels, SIDE * SIDE], [0, 0, -1])))
    turned = net.node("Transpose", flat, perm=[0, 2, 1])
    hidden = net.node(net.pick("Relu", "Sigmoid"), net.node("MatMul", turned, net.weight(net.channels, middle)))
    if net.pick(True, False):
        hidden = net.node("LayerNormalization", hidden, net.weight(middle), net.weight(middle))
    back = net.node("Transpose", net.node("MatMul", hidden, net.weight(middle, out)), perm=[0, 2, 1])
    batch = net.node("Gather", net.node("Shape", back), net.const([0]))
    net.x = net.node("Reshape", back, net.node("Concat", batch, net.const([out, SIDE, SIDE]), axis=0))
    net.channels = out


def attention(net: Net) -> None:
    heads, each = net.pick(1, 2, 3), net.pick(2, 4)
    flat = net.node("Transpose", net.node("Reshape", net.x, net.const([0, 0, -1])), perm=[0, 2, 1])
    packed = net.node("MatMul", flat, net.weight(net.channels, 3 * heads * each))
    parts = net.node("Split", packed, net.const([heads * each] * 3), outputs=3, axis=2)
    apart = [net.node("Reshape", part, net.const([0, 0, heads, each])) for part in parts]
    q, k, v = (
        net.node("Transpose", a, perm=perm) for a, perm in zip(apart, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    weights = net.node("Softmax", net.node("MatMul", q, k), axis=-1)
    joined = net.node("Transpose", net.node("MatMul", weights, v), perm=[0, 2, 1, 3])
    out = net.node("MatMul", net.node("Reshape", joined, net.const([0, 0, heads * each])), net.weight(heads * each, 4))
    net.x = net.node("Reshape", net.node("Transpose", out, perm=[0, 2, 1]), net.const([0, 4, SIDE, SIDE]))
    net.channels = 4


def resize(net: Net) -> None:
    large = net.node("Resize", net.x, "", net.const([1, 1, 2, 2], np.float32), mode=net.pick("nearest", "linear"))
    net.x = net.node("AveragePool", large, kernel_shape=[2, 2], strides=[2, 2])


def blocks(net: Net) -> None:
    """Space into channels and back, with a layer between."""
    net.x, net.channels = net.node("SpaceToDepth", net.x, blocksize=2), net.channels * 4
    net.pick(batch_norm, unary)(net)
    net.x = net.node("DepthToSpace", net.x, blocksize=2, mode=net.pick("DCR", "CRD"))
    net.channels //= 4


def statistic(net: Net) -> None:
    op, over = net.pick("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), net.pick([1], [2, 3], [1, 2], [-1])
    found = net.node(op, net.x, net.const(over), keepdims=1)
    net.x = net.node("Add", net.x, found)


def normalise(net: Net) -> None:
    c, kind = net.channels, net.pick("InstanceNormalization", "Softmax", "GroupNormalization")
    if kind == "Softmax":
        net.x = net.node("Softmax", net.x, axis=net.pick(1, 2, 3))
    elif kind == "InstanceNormalization":
        net.x = net.node(kind, net.x, net.weight(c), net.weight(c))
    else:
        group = net.divisor(c)
        net.x = net.node(kind, net.x, net.weight(c), net.weight(c), num_groups=group)


def pick_channels(net: Net) -> None:
    order = net.draw(st.permutations(range(net.channels)))
    net.x = net.node("Gather", net.x, net.const(order), axis=1)


def repeat(net: Net) -> None:
    if net.channels > 12:
        return
    if net.pick(True, False):
        net.x = net.node("Tile", net.x, net.const([1, 2, 1, 1]))
        net.channels *= 2
    else:
        total = net.node("ReduceMean", net.x, net.const([2, 3]), keepdims=1)
        net.x = net.node("Expand", total, net.const([1, net.channels, SIDE, SIDE]))


def choose(net: Net) -> None:
    other = net.conv(net.x, net.channels, net.channels)
    net.x = net.node("Where", net.node("Greater", net.x, other), net.x, other)


def tied(net: Net) -> None:
    weight, bias = net.weight(net.channels, net.channels, 1, 1), net.weight(net.channels)
    net.x = net.node("Conv", net.node("Relu", net.node("Conv", net.x, weight, bias)), weight, bias)


def einsum(net: Net) -> None:
    out = net.pick(2, 5)
    net.x = net.node("Einsum", net.x, net.weight(net.channels, out), equation="nchw,cd->ndhw")
    net.channels = out


LAYERS = (
    dense, grouped, transposed, unary, batch_norm, affine, pool, residual, concat, split, gated, cut, pad, shuffle, gate, tokens,
    attention, resize, blocks, statistic, normalise, pick_channels, repeat, choose, tied, einsum,
)  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> ModelProto:
    """A convolution, layers, and a head; every value has a shape for every batch."""
    net = Net(draw)
    dense(net)
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=2, max_size=6)):
        layer(net)
    head = net.pick("conv", "flatten", "pooled")
    if head == "conv":
        net.x = net.conv(net.x, net.channels, 2)
    else:
        flat = net.node("Flatten", net.x if head == "flatten" else net.node("GlobalAveragePool", net.x))
        size = net.channels * (SIDE * SIDE if head == "flatten" else 1)
        net.x = net.node("Gemm", flat, net.weight(2, size), net.weight(2), transB=1)
    shape: list[str | int | None] = ["N", 2, SIDE, SIDE] if head == "conv" else ["N", 2]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    net.nodes.append(helper.make_node("Identity", [net.x], ["y"]))
    given_x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    graph = helper.make_graph(net.nodes, "random", [given_x], [output], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def plan_for(found: Any, rng: np.random.Generator, share: float) -> dict[str, list[int]]:
    """A random subset of a random share of the groups; never empty."""
    keep = {}
    for group in found.coupling.groups:
        if rng.random() < share:
            keep[group.id] = sorted(rng.choice(group.size, rng.integers(1, group.size + 1), replace=False).tolist())
    return keep


def check(model: ModelProto, seed: int, share: float) -> None:
    found = analyze(model)
    keep = plan_for(found, np.random.default_rng(seed), share)
    pruned, masked = both(found, keep)
    outcome = law.compare(pruned, masked)
    assert outcome.ok, f"{keep}: {outcome.text}\n{onnx.printer.to_text(model)[:6000]}"
    assert outcome.runs == 2
    assert pruned.graph.input == model.graph.input
    assert pruned.graph.output == model.graph.output


@settings(max_examples=40)
@given(models(), st.integers(0, 2**16), st.sampled_from([0.3, 1.0]))
def test_pruned_is_masked(model: ModelProto, seed: int, share: float) -> None:
    check(model, seed, share)
