"""Convolutions."""

from __future__ import annotations

import math

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import axes, rule
from onnxprune.ir.node import NodeView


@rule("Conv")
def conv(node: NodeView) -> AxisRule:
    """Dense is g = 1, depthwise is i = 1."""
    return axes(
        "n (g i) _..., (g o) i _..., (g o) -> n (g o) _...",
        sizes={"g": node.attr("group", 1), "k": math.prod(node.shape(1)[2:]) * math.prod(node.out()[2:])},
        attrs={"group": "g"},
        zero=((0, 1), (2,)),
        macs="n g o i k",
    )


@rule("ConvTranspose")
def conv_transpose(node: NodeView) -> AxisRule:
    return axes(
        "n (g i) _..., (g i) o _..., (g o) -> n (g o) _...",
        sizes={"g": node.attr("group", 1), "k": math.prod(node.shape(1)[2:]) * math.prod(node.shape()[2:])},
        attrs={"group": "g"},
        zero=((0, 1), (2,)),
        macs="n g i o k",
    )
