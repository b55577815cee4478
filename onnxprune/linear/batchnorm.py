"""Batch normalisations behind linear nodes: one more linear map of the output, which a repair writes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.weights import Array, Weight

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.node import NodeView

__all__ = ["Consumers", "FoldableNorm", "norm_behind"]

Consumers = Mapping[str, list[tuple["NodeProto", int]]]
"""For each value the nodes that read it, with the input position."""


@dataclass(frozen=True, slots=True)
class FoldableNorm:
    """A batch normalisation that alone reads the output of a linear node.

    Attributes:
        output: its output.
        scale: the name of its scale,
        shift: of what it adds,
        mean: of its mean,
        variance: and of its variance.
        epsilon: what is added to the variance.
        bias: the constant that the linear node adds itself, empty if there is none.
    """

    output: str
    scale: str
    shift: str
    mean: str
    variance: str
    epsilon: float
    bias: str

    def gain(self, model: Model) -> Array:
        """The factor that each channel is multiplied by. float64 [channels]"""
        scale, variance = (model.weights[name].array().astype(np.float64) for name in (self.scale, self.variance))
        found: Array = scale / np.sqrt(variance + self.epsilon)
        return found

    def folded(self, model: Model) -> Array:
        """The output of each channel where the product is zero. float64 [channels]"""
        shift, mean = (model.weights[name].array().astype(np.float64) for name in (self.shift, self.mean))
        own = model.weights[self.bias].array() if self.bias else 0
        # gain * (product + own - mean) + shift at product = 0
        found: Array = shift + (own - mean) * self.gain(model)
        return found

    def pass_on(self, model: Model) -> None:
        """Let it add the shift and do nothing else."""
        values = {self.scale: 1.0, self.mean: 0.0, self.variance: 1.0 - self.epsilon} | ({self.bias: 0.0} if self.bias else {})
        for name, value in values.items():
            model.weights[name] = Weight(name, None, np.full_like(model.weights[name].array(), value))


def norm_behind(model: Model, view: NodeView, bias: str, consumers: Consumers) -> FoldableNorm | None:
    """The batch normalisation that is all that reads a node's output, if nothing else has its constants.

    Args:
        model: the graph.
        view: the node.
        bias: the constant that the node adds itself, empty if there is none.
        consumers: of every value, with the input position.
    """
    output = view.outputs[0]
    behind = consumers.get(output, [])
    if len(behind) != 1 or any(value.name == output for value in model.graph.output):
        return None
    node, position = behind[0]
    training = any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.op_type != "BatchNormalization" or position != 0 or len(node.output) > 1 or training:
        return None
    if any(name not in model.weights or len(consumers[name]) > 1 for name in node.input[1:]):
        return None
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    scale, shift, mean, variance = node.input[1:]
    return FoldableNorm(node.output[0], scale, shift, mean, variance, epsilon, bias)
