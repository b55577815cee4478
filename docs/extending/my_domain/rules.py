"""The rule of ``my.domain::Foo``: ``y = slope * x / (1 + |x|)``, with one slope for each channel."""

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules import axes, rule
from onnxprune.ir.node import NodeView


@rule("Foo", domain="my.domain")
def foo(node: NodeView) -> AxisRule:
    """Channels pass through; an output is zero where the input or the slope is."""
    return axes("n c _..., c -> n c _...", zero=((0, 1),))
