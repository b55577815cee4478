"""The real numbers that quantised constants stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.weights import Array, Weight

__all__ = ["dequantized"]


def dequantized(weights: Mapping[str, Weight], node: NodeAxes, position: int) -> Array:
    """The real values of a quantised constant, up to a factor where its scale is computed.

    Args:
        weights: the constants of the graph.
        node: the node that reads it.
        position: the input where it does.

    Returns:
        float32 of the shape of the constant; where its bytes hold several integers, these lie along the last axis.
    """
    scale, point = node.rule.quantized[position]
    packed = node.rule.packed
    count = packed.get(position, 1)
    result = _unpacked(weights[node.view.inputs[position]].array(), count).astype(np.float32)
    if position in packed and not node.view.has(point):
        result -= 2 ** (8 // count - 1)  # the middle
    for at, combine in ((point, np.subtract), (scale, np.multiply)):
        weight = weights.get(node.view.inputs[at]) if at >= 0 and node.view.has(at) else None
        if weight is not None:
            given = weight.array() if weight.is_float else _unpacked(weight.array(), packed.get(at, 1))
            result = combine(result, _aligned(given.astype(np.float32), result, blocked=position in packed))
    return result


def _unpacked(array: Array, count: int) -> Array:
    """The integers of bytes that hold ``count`` each, lowest bits first. [..., bytes] -> [..., bytes * count]"""
    if count == 1:
        return array
    bits = 8 // count
    values: Array = (array[..., None] >> (np.arange(count, dtype=np.uint8) * bits)) & (2**bits - 1)
    return values.reshape(*array.shape[:-1], -1)


def _aligned(given: Array, array: Array, *, blocked: bool) -> Array:
    """Scales or zero points, so that they broadcast against what they belong to: of all, of an axis, or of blocks."""
    if given.size == 1:
        return given.reshape(())
    if blocked:  # [rows, blocks] of [rows, blocks, positions of a block]; there may be a spare one in the last byte of a row
        rows, blocks, _ = array.shape
        return given.reshape(rows, -1)[:, :blocks, None]
    if given.ndim == array.ndim:
        for axis, (few, many) in enumerate(zip(given.shape, array.shape, strict=True)):
            if few != many:
                block = -(-many // few)
                given = np.repeat(given, block, axis).take(np.arange(many), axis)
        return given
    axis = next((i for i, size in enumerate(array.shape) if size == given.size), 0)
    shape = [1] * array.ndim
    shape[axis] = given.size
    return given.reshape(shape)
