"""Weights of int8 models in floating point while they are trained: rounded in the graph, so that the loss sees the rounding.

    before:  DequantizeLinear(w int8, s)                     after:  w float -> QuantizeLinear(s) -> DequantizeLinear(s)

Gradients pass straight through the rounding (`onnxprune.torch.ops.quant`). Scales stay as they are, and so do the ranges of
activations. Biases, which have 32 bits, are not rounded while they are trained. Example: with ``s = 0.1`` an entry of 7 is 0.7 in
floating point; a step to 0.76 becomes 8 when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.weights import Array, Weight

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["round_weights", "with_float_weights"]

_WHOLE = "__whole"
_BIAS = TensorProto.INT32
_KINDS = frozenset({TensorProto.INT8, TensorProto.UINT8, _BIAS})


@dataclass(frozen=True, slots=True)
class _Integers:
    """A constant in integers.

    Attributes:
        node: that makes floating-point numbers of it.
        values: the integers.
        scale: of each entry, or of all; shaped to go with the values.
        zero: likewise what stands for 0.
    """

    node: NodeProto
    values: Array
    scale: Array
    zero: Array

    @property
    def real(self) -> Array:
        """The numbers that the integers stand for, in float32."""
        return ((self.values.astype(np.int64) - self.zero) * self.scale.astype(np.float64)).astype(np.float32)

    def rounded(self, real: Array) -> Array:
        """The nearest integers, in the range that there was: int8 weights may take 7 bits, so that sums do not overflow."""
        if self.values.dtype == np.int32:
            limits = np.iinfo(np.int32)
            low, high = limits.min, limits.max
        else:
            most = int(np.abs(self.values.astype(np.int64) - self.zero).max())
            low, high = -most, most
        whole = np.rint(real.astype(np.float64) / self.scale).clip(low, high).astype(np.int64) + self.zero
        return whole.astype(self.values.dtype)


def _integers(model: Model) -> Iterator[_Integers]:
    """The constants in integers that are read through `DequantizeLinear`, in the order of the graph."""
    for node in model.graph.node:
        weight = model.weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is None or weight.dtype not in _KINDS or any(one.name == "block_size" for one in node.attribute):
            continue
        around = [model.weights.get(name) for name in node.input[1:] if name]
        if None in around:
            continue
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        shaped = [_along(one.array(), weight.shape, axis) for one in around if one is not None]
        zero = shaped[1].astype(np.int64) if len(shaped) > 1 else np.zeros((), np.int64)
        yield _Integers(node, weight.array(), shaped[0], zero)


def _along(values: Array, shape: tuple[int, ...], axis: int) -> Array:
    """One number for all entries, or one for each position of an axis, shaped to go with the entries."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if at == axis % len(shape) else 1 for at in range(len(shape))])


def with_float_weights(model: Model) -> Model:
    """An int8 model whose weights and biases are in floating point; weights are rounded in the graph. It computes the same."""
    result = model.copy()
    nodes: list[NodeProto] = []
    found = {one.node.output[0]: one for one in _integers(model)}
    for node in model.graph.node:
        one = found.get(node.output[0])
        if one is None:
            nodes.append(node)
            continue
        name, made = node.input[0], node.output[0]
        if one.values.dtype == np.int32:
            result.weights[made] = Weight(made, None, one.real)
            continue
        whole = f"{made}{_WHOLE}"
        scales = list(node.input[1:])
        if len(scales) == 1:
            scales.append(f"{whole}_zero")
            result.weights[scales[1]] = Weight(scales[1], None, np.zeros(result.weights[scales[0]].shape, one.values.dtype))
        rounding = helper.make_node("QuantizeLinear", [name, *scales], [whole])
        rounding.attribute.extend(node.attribute)
        reading = NodeProto()
        reading.CopyFrom(node)
        reading.input[0] = whole
        result.weights[name] = Weight(name, None, one.real)
        nodes += [rounding, reading]
    del result.proto.graph.node[:]
    result.proto.graph.node.extend(nodes)
    return result


def round_weights(trained: Model, model: Model) -> Model:
    """The int8 model with the weights of one that `with_float_weights` made of it, rounded; nothing else changes."""
    result = model.copy()
    for one in _integers(model):
        name, made = one.node.input[0], one.node.output[0]
        real = trained.weights[made if one.values.dtype == np.int32 else name].array()
        if not np.array_equal(real, one.real):
            changed = Weight(name, None, one.rounded(real))
            changed.origin = model.weights[name].origin
            result.weights[name] = changed
    return result
