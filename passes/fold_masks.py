"""Fold weights that a graph multiplies by a mask, as exports of models under ``torch.nn.utils.prune`` do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of, every_graph, every_node
from onnxprune.ir.weights import FLOATS, Array, Weight
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.constants import gather_constants
from onnxprune.passes.normalize import remove_unused

__all__ = ["FoldMasks"]

_THROUGH = frozenset({"Cast", "Identity"})


@dataclass(frozen=True)
class FoldMasks(Pass):
    """``Mul(weight_orig, weight_mask)`` is one constant with zeros, where the mask is nothing but zeros and ones.

    Through ``Identity`` and ``Cast`` too, and where one mask follows another. A negative weight times zero is stored as zero,
    not as the negative zero that the product is.
    """

    def run(self, model: Model) -> Model:
        """The model with its masks folded; ``model`` itself where there are none."""
        changed = model.copy()
        gather_constants(changed)
        known: dict[str, Weight] = dict(changed.weights)
        folded: set[str] = set()
        kept = {value.name for value in (*changed.graph.input, *changed.graph.output)}
        for node in every_node(changed.graph):
            output = node.output[0] if len(node.output) == 1 and not domain_of(node) else ""
            inputs = [known[name] for name in node.input if name in known]
            if not output or not inputs or len(inputs) < len(node.input) or not kept.isdisjoint({output, *node.input}):
                continue
            if node.op_type in _THROUGH:
                known[output] = _through(node, inputs[0])
            elif node.op_type == "Mul":
                product = _masked(output, *inputs)
                if product is not None:
                    known[output] = product
                    folded.add(output)
        if not folded:
            return model
        for graph in every_graph(changed.graph):
            replace_all(graph.node, [node for node in graph.node if folded.isdisjoint(node.output)])
        changed.weights |= {name: known[name] for name in folded}
        remove_unused(changed)
        return changed


def _through(node: NodeProto, weight: Weight) -> Weight:
    """What a ``Cast`` or ``Identity`` makes of a constant."""
    dtype = next((attribute.i for attribute in node.attribute if attribute.name == "to"), weight.dtype)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    return Weight.computed(node.output[0], weight.shape, dtype, lambda: weight.array().astype(kind, copy=False))


def _masked(name: str, one: Weight, other: Weight) -> Weight | None:
    """The product, if one of the two is a mask."""
    for weight, mask in ((one, other), (other, one)):
        if weight.dtype in FLOATS and mask.shape == weight.shape and _is_mask(mask.array()):
            return Weight.computed(name, weight.shape, weight.dtype, partial(_product, weight, mask))
    return None


def _is_mask(array: Array) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array == 0).any())


def _product(weight: Weight, mask: Weight) -> Array:
    array = weight.array()
    product: Array = array * mask.array().astype(array.dtype) + np.zeros(1, array.dtype)
    return product
