"""The rule that says which constants of a graph are trained: it looks at their readers, not at their names.

- A *weight* is a floating-point constant that every reader takes where a layer has its weights (kernels, matrices, biases,
  scales of normalisations, slopes, tables of embeddings), or as an operand of arithmetic or of what moves data around, where
  it must have more than one element: numbers such as ``1 / sqrt(d)`` are no weights. A mask (zeros and entries of -100 or
  less, as attention adds) is no weight either.
- A *statistic* is a running mean or variance of a normalisation that no other layer reads; train mode updates it.
- Everything else is a *constant*: sizes, indices, scales and zero points of quantisation, and what is read in two of
  these ways, because equal constants of unrelated layers were merged.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.ir.weights import Weight
from onnxprune.torch.registry import Operator

__all__ = ["Role", "Use", "role"]

_MASKED = -100.0
"""Entries of additive masks are 0, or at most this: softmax then gives a position no more than ``exp(-100)``."""


class Role(enum.Enum):
    """The part that a constant has in training."""

    WEIGHT = "weight"
    STATISTIC = "statistic"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Use:
    """One reader of a constant.

    Attributes:
        operator: that reads it; ``None`` for the outputs of the graph.
        position: of the input, from 0.
        layer: the constants that the reader has, which tell a layer that runs twice from two layers.
    """

    operator: Operator | None
    position: int
    layer: tuple[str, ...] = ()


def role(weight: Weight, uses: Sequence[Use]) -> Role:
    """The part that a constant has in training, which follows from all its readers."""
    if not weight.is_float or not uses:
        return Role.CONSTANT
    operators = [(use.operator, use.position) for use in uses if use.operator is not None]
    if len(operators) < len(uses):
        return Role.CONSTANT
    if all(at in operator.statistics for operator, at in operators):
        return Role.STATISTIC if len({use.layer for use in uses}) == 1 else Role.CONSTANT
    if not all(at in operator.weights or at in operator.operands for operator, at in operators):
        return Role.CONSTANT
    if not any(at in operator.weights for operator, at in operators) and (weight.size <= 1 or _is_attention_mask(weight)):
        return Role.CONSTANT
    return Role.WEIGHT


def _is_attention_mask(weight: Weight) -> bool:
    array = weight.array()
    low = array <= _MASKED
    return bool(low.any() and (low | (array == 0)).all())
