"""How much memory a run of a model takes, about, before it is run: the proof costs a few runs, and no more at a time than one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxprune.ir.node import domain_of, every_node
from onnxprune.runtime.memory import share
from onnxprune.shapes.probes import shapes_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["EXPENSIVE", "activation_bytes", "expensive"]

_SMALL_SAMPLE = 1 << 14
"""Elements of one sample up to which a run is taken to be cheap: images and videos take long."""
_MAKERS = frozenset({
    "ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "RandomNormal", "RandomUniform", "Range", "Resize", "Tile",
    "Upsample",
})  # fmt: skip
"""Operators whose outputs are as large as some numbers say."""
EXPENSIVE = 1 << 31
"""Bytes of all activations, 2 GiB, from which on a model is run on one sample, and once."""
_ELEMENT = 4
"""Bytes of an element, about."""
_PART = 2
"""The part of the memory which a run may take before it counts as expensive."""


def expensive() -> int:
    """`EXPENSIVE`, or less where memory is short."""
    return share(_PART, EXPENSIVE)


def activation_bytes(model: Model, sizes: Mapping[str, Shape]) -> int:
    """Bytes of all activations of a run with inputs of these sizes, about; 0 where the inputs are small, and nothing makes much
    of little.
    """
    small = sum(math.prod(shape) for shape in sizes.values()) <= _SMALL_SAMPLE
    if small and all(node.op_type not in _MAKERS or domain_of(node) for node in every_node(model.graph)):
        return 0
    shapes = shapes_at(model, sizes).shapes
    return _ELEMENT * sum(math.prod(shape) for name, shape in shapes.items() if shape is not None and name not in model.weights)
