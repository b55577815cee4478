"""Activations of products get channels of about one size, which the weights make up for, so that one step of int8 suits them all.

After Xiao et al. 2023, "SmoothQuant": the channel *k* that a product reads is divided by ``s_k = max|x_k|^a / max|w_k|^(1 - a)``,
and the row *k* of its weight is multiplied by it. Where products alone read what a layer normalisation makes, its scale and shift
take the division; elsewhere a ``Mul`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of
from onnxprune.ir.weights import Array, Weight
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all
from onnxprune.runtime.session import Session

if TYPE_CHECKING:
    from onnxprune.data.calibration import Batches

__all__ = ["Smooth"]

_SHARE = 0.75
"""*a*: weights take more of it, whose columns have a step each and are rounded towards the output; decision 0038 has figures."""
_RATIO = 4.0
"""By how much the largest channel must exceed the median of all: others gain nothing."""


@dataclass(frozen=True, slots=True)
class _Product:
    """A node that multiplies by a constant matrix that nothing else reads.

    Attributes:
        node: the node.
        weight: the name of the matrix.
        axis: along which its rows lie, one for each channel that is read.
    """

    node: NodeProto
    weight: str
    axis: int


@dataclass(frozen=True)
class Smooth(Pass):
    """Divide the channels that products read, and multiply the rows of their weights. Computes the same as before."""

    def run(self, model: Model, feeds: Batches) -> Model:
        """The model with smooth activations; itself where they are so already.

        Args:
            model: in float32.
            feeds: batches of inputs, on which channels are measured.
        """
        made = {name for node in model.graph.node for name in node.output}
        groups = {data: found for data, found in _by_data(model).items() if data in made}
        largest = _largest(model, list(groups), feeds) if groups else {}
        steps = dict(_steps(model, groups, largest))
        if not steps:
            return model
        smooth = model.copy()
        consumers, outputs = smooth.consumers(), {output.name for output in smooth.graph.output}
        makers = {name: node for node in smooth.graph.node for name in node.output}
        products = _by_data(smooth)
        after: dict[str, NodeProto] = {}
        for data, step in steps.items():
            for product in products[data]:
                weight = model.weights[product.weight]
                shape = (-1, 1) if product.axis == 0 else (1, -1)
                smooth.weights[weight.name] = weight.derived(weight.shape, partial(_times, factor=step.reshape(shape)))
            alone = data not in outputs and len(consumers[data]) == len(products[data])
            if not (alone and _divided(smooth, makers[data], step)):
                after[data] = _division(smooth, data, step)
                for product in products[data]:
                    product.node.input[0] = after[data].output[0]
        nodes: list[NodeProto] = []
        for node in smooth.graph.node:
            nodes.append(node)
            nodes += [after[name] for name in node.output if name in after]
        replace_all(smooth.graph.node, nodes)
        return smooth


def _by_data(model: Model) -> dict[str, list[_Product]]:
    """The products by what they read."""
    consumers = model.consumers()
    found: dict[str, list[_Product]] = {}
    for node in model.graph.node:
        weight = model.weights.get(node.input[1]) if node.op_type in {"MatMul", "Gemm"} and not domain_of(node) else None
        if weight is None or len(weight.shape) != 2 or len(consumers[weight.name]) > 1 or weight.name in model.overridable:
            continue
        turned = {attribute.name for attribute in node.attribute if attribute.name in {"transA", "transB"} and attribute.i}
        if "transA" not in turned and weight.dtype == TensorProto.FLOAT:
            found.setdefault(node.input[0], []).append(_Product(node, weight.name, 1 if turned else 0))
    return found


def _largest(model: Model, names: Sequence[str], feeds: Batches) -> Mapping[str, Array]:
    """The largest magnitude in each channel of some values. [channels]"""
    session = Session(model, names)
    found: dict[str, Array] = {}
    for feed in feeds:
        for name, value in zip(names, session.run(feed), strict=True):
            size = np.abs(value).reshape(-1, value.shape[-1]).max(0, initial=0)
            found[name] = np.maximum(found.get(name, size), size)
    return found


def _steps(model: Model, groups: Mapping[str, Sequence[_Product]], largest: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """What the channels of values are divided by, where that makes them alike. [channels]"""
    for data, products in groups.items():
        size = largest[data].astype(np.float64)
        weights = np.max([np.abs(model.weights[one.weight].array()).max(1 - one.axis) for one in products], 0)
        sound = np.isfinite(size) & (size > 0) & (weights > 0)
        if not sound.any() or not np.isfinite(size).all() or size.max() <= _RATIO * np.median(size):
            continue
        step = np.ones(len(size))
        step[sound] = size[sound] ** _SHARE / weights[sound] ** (1 - _SHARE)
        step[sound] /= np.exp(np.log(step[sound]).mean())
        yield data, step.astype(np.float32)


def _times(array: Array, factor: Array) -> Array:
    return array * factor


def _divided(model: Model, maker: NodeProto, step: Array) -> bool:
    """Divide what a layer normalisation makes; whether it is one that can."""
    names = maker.input[1:3]
    if maker.op_type != "LayerNormalization" or domain_of(maker) or not set(names) <= model.weights.keys():
        return False
    for at, name in enumerate(names, 1):
        own = model.fresh_name(f"{name}__smooth")
        weight = model.weights[name]
        model.weights[own] = Weight(own, None, (weight.array() / step).astype(np.float32))
        maker.input[at] = own
    return True


def _division(model: Model, data: str, step: Array) -> NodeProto:
    """The node that divides a value."""
    constant, result = model.fresh_name(f"{data}__step"), model.fresh_name(f"{data}__smooth")
    model.weights[constant] = Weight(constant, None, (1 / step).astype(np.float32))
    return helper.make_node("Mul", [data, constant], [result], name=result)
