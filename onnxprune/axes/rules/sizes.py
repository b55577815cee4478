"""Size arithmetic: operators that read or spell sizes."""

from __future__ import annotations

import numpy as np

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import NEVER, axes, rule
from onnxprune.ir.node import NodeView


@rule("Shape")
def shape(node: NodeView) -> AxisRule:
    """Reads sizes, not values: after pruning it simply reads smaller ones."""
    return axes("... -> _", zero=())


@rule("Size")
def size(node: NodeView) -> AxisRule:
    return axes("... -> ", zero=())


@rule("ConstantOfShape")
def constant_of_shape(node: NodeView) -> AxisRule:
    names = [f"a{i}" for i in range(len(node.out()))]
    value = node.attr("value")
    filled = value is not None and np.any(np.frombuffer(value.raw_data or b"\1", np.uint8))
    return axes(f"_ -> {' '.join(names)}", sizes_at={0: names}, zero=NEVER if filled else None)
