"""Pooling and resampling: channels pass, space has an order."""

from __future__ import annotations

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import Refused, axes, rule
from onnxprune.ir.node import NodeView


@rule("AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(node: NodeView) -> AxisRule:
    return axes("n c _... -> n c _...")


@rule("MaxPool")
def max_pool(node: NodeView) -> AxisRule | Refused:
    if len(node.outputs) > 1 and node.outputs[1]:
        return Refused("its second output counts positions across all channels")
    return axes("n c _... -> n c _...")


@rule("GridSample")
def grid_sample(node: NodeView) -> AxisRule:
    return axes("n c _..., n _... -> n c _...")


@rule("RoiAlign", "MaxRoiPool")
def region(node: NodeView) -> AxisRule:
    """Regions take the place of the batch."""
    return axes("_ c _ _ -> _ c _ _")


@rule("Resize", "Upsample")
def resize(node: NodeView) -> AxisRule | Refused:
    """Axes that keep their size pass; the others have an order."""
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Refused("crops and resizes: every size matters")
    shape, out = node.shape(), node.out()
    names = [f"a{i}" if size == full else "_" for i, (size, full) in enumerate(zip(shape, out, strict=True))]
    text = " ".join(names)
    chosen = [axis % len(shape) for axis in node.attr("axes", range(len(shape)))]
    entries = [None if names[i] == "_" or node.is_dynamic(i) else names[i] for i in chosen]
    return axes(f"{text} -> {text}", sizes_at={3: entries} if node.has(3) else None)
