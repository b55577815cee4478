"""Normalisations."""

from __future__ import annotations

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView


@rule("BatchNormalization")
def batch_normalization(node: NodeView) -> AxisRule | Refused:
    if node.attr("training_mode", 0):
        return Refused("is in training mode", remedy="export the model in evaluation mode")
    return axes("n c _..., c, c, c, c -> n c _...", zero=((1,), (2,)))


@rule("InstanceNormalization")
def instance_normalization(node: NodeView) -> AxisRule:
    space = " ".join(f"s{i}" for i in range(len(node.shape()) - 2))
    return axes(f"n c {space}, c, c -> n c {space}", mix=space, zero=((1,), (2,)))


@rule("LayerNormalization")
def layer_normalization(node: NodeView) -> AxisRule:
    rank, axis = len(node.shape()), node.axis(-1)
    outer, inner = " ".join(f"a{i}" for i in range(axis)), " ".join(f"d{i}" for i in range(rank - axis))
    bias = f", {inner}" if node.has(2) else ""
    statistics = f", {outer} {'1 ' * (rank - axis)}" * (len(node.outputs) - 1)
    return axes(f"{outer} {inner}, {inner}{bias} -> {outer} {inner}{statistics}", mix=inner, zero=((1,), (2,)))


@rule("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(node: NodeView) -> AxisRule:
    rank, axis = len(node.shape()), node.axis(-1)
    outer, inner = " ".join(f"a{i}" for i in range(axis)), " ".join(f"d{i}" for i in range(rank - axis))
    statistics = f", {outer} {'1 ' * (rank - axis)}" * (len(node.outputs) - 1)
    return axes(f"{outer} {inner}, {inner} -> {outer} {inner}{statistics}", mix=inner, zero=((0, 1),))


@rule("GroupNormalization")
def group_normalization(node: NodeView) -> AxisRule:
    """Whole groups may go exactly, channels inside a group may not. Before operator set 21 scale and bias are per group."""
    per = "(g k)" if node.opset >= 21 else "g"
    return axes(
        f"n (g k) _..., {per}, {per} -> n (g k) _...",
        mix="k",
        sizes={"g": node.attr("num_groups")},
        attrs={"num_groups": "g"},
        zero=((1,), (2,)),
    )


@rule("LRN")
def lrn(node: NodeView) -> Refused:
    return Refused("normalises each channel by its neighbours, whose order matters")


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: NodeView) -> Refused:
    return Refused("divides by a standard deviation, which is 0 at removed positions in the masked model")


@rule("LpNormalization")
def lp_normalization(node: NodeView) -> AxisRule:
    """Zeros add nothing to a norm."""
    names = [f"a{i}" for i in range(len(node.shape()))]
    text = " ".join(names)
    return axes(f"{text} -> {text}", sums=names[node.axis(-1)])


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: NodeView) -> AxisRule:
    """Before operator set 13 the axes from ``axis`` on are one."""
    if node.opset >= 13:
        return over_axis(node, node.axis(-1), zero=NEVER)
    first, rank = node.axis(1), len(node.shape())
    names = [f"a{i}" for i in range(rank)]
    text = " ".join(names)
    return axes(f"{text} -> {text}", mix=" ".join(names[first:]), zero=NEVER)


def over_axis(node: NodeView, axis: int, zero: tuple[tuple[int, ...], ...] | None = None) -> AxisRule:
    """A normalisation over one axis of a tensor that keeps its shape."""
    names = [f"a{i}" for i in range(len(node.shape()))]
    text = " ".join(names)
    return axes(f"{text} -> {text}", mix=names[axis], zero=zero)
