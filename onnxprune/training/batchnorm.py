"""Batch normalisation that exporters folded into convolutions, back for as long as a model is trained.

The bias of an exported convolution was a batch normalisation once. Without it a net that loses nine tenths of its weights loses
the size of its signals too, layer by layer, and new weights do not train at all: the recipes of the literature were made for nets
that normalise. `restore_norms` puts a normalisation behind each convolution with a bias of its own. At first it changes nothing:
it has the statistics of the data, and its scale and shift undo them. At the end `fold_norms` multiplies it into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor

from onnxprune.ir.node import domain_of
from onnxprune.ir.weights import Weight
from onnxprune.torch.module import GraphModule
from onnxprune.training.masks import parameter_of

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model

__all__ = ["RestoredNorm", "fold_norms", "initialize_norms", "restore_norms", "update_batchnorm"]

_EPSILON = 1e-5
"""Added to the variance; the default of ONNX and PyTorch."""
_CONVOLUTIONS = {"Conv", "ConvTranspose"}


@dataclass(frozen=True, slots=True)
class RestoredNorm:
    """A normalisation behind a convolution, by the names of its constants.

    Attributes:
        weight: of the convolution; ``bias`` is its bias.
        groups: of a transposed convolution, whose weights are [inputs, outputs of a group, ...]; 0 for any other.
        scale: of the normalisation; ``shift``, ``mean`` and ``var`` are the others. Each is of shape [outputs].
    """

    weight: str
    bias: str
    groups: int
    scale: str
    shift: str
    mean: str
    var: str

    @property
    def constants(self) -> tuple[str, str, str, str]:
        """The constants that only the normalisation reads."""
        return self.scale, self.shift, self.mean, self.var


def restore_norms(model: Model) -> tuple[Model, tuple[RestoredNorm, ...]]:
    """A copy in which normalisations follow convolutions; see `initialize_norms` for their constants.

    A convolution gets one if no other node reads its weight and bias, its output is not one of the model, and no normalisation
    reads it. Values keep their names: the output of the convolution is now that of the normalisation.
    """
    copy, norms = model.copy(), list[RestoredNorm]()
    readers = copy.consumers()
    outputs = {value.name for value in copy.graph.output}
    nodes = [*copy.graph.node]
    del copy.graph.node[:]
    for node in nodes:
        copy.graph.node.append(node)
        if _is_folded(copy, node, readers) and node.output[0] not in outputs:
            norms.append(_append(copy, copy.graph.node[-1]))
    return copy, tuple(norms)


def _is_folded(model: Model, node: NodeProto, readers: Mapping[str, list[tuple[NodeProto, int]]]) -> bool:
    if node.op_type not in _CONVOLUTIONS or domain_of(node) or len(node.input) < 3:
        return False
    constants = node.input[1:3]
    if any(name not in model.weights or not model.weights[name].is_float or len(readers[name]) > 1 for name in constants):
        return False
    return not any("Normalization" in reader.op_type for reader, _ in readers.get(node.output[0], ()))


def _append(model: Model, node: NodeProto) -> RestoredNorm:
    """Put a normalisation behind the last node."""
    value, (weight, bias) = node.output[0], node.input[1:3]
    node.output[0] = model.fresh_name(f"{value}__raw")
    like = model.weights[bias].array()
    names = []
    for part, entry in (("scale", 1), ("shift", 0), ("mean", 0), ("var", 1 - _EPSILON)):
        names.append(model.fresh_name(f"{weight}__{part}"))
        model.weights[names[-1]] = Weight(names[-1], None, np.full(like.shape, entry, like.dtype))
    added = helper.make_node("BatchNormalization", [node.output[0], *names], [value], f"{node.name}__norm", epsilon=_EPSILON)
    model.graph.node.append(added)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return RestoredNorm(weight, bias, groups if node.op_type == "ConvTranspose" else 0, *names)


@torch.no_grad()
def initialize_norms(module: GraphModule, norms: Iterable[RestoredNorm], batches: Iterable[Mapping[str, Any]]) -> None:
    """Give normalisations the statistics of the data, and the scales and shifts with which they change nothing.

    Args:
        module: of the copy that `restore_norms` made, with the weights that it will begin with.
        norms: its normalisations.
        batches: samples from which statistics are taken, by the names of inputs.
    """
    norms = tuple(norms)
    for norm in norms:
        for name, entry in ((norm.scale, 1), (norm.shift, 0), (norm.mean, 0), (norm.var, 1 - _EPSILON)):
            parameter_of(module, name).fill_(entry)
    found = _statistics(module.eval(), {norm.mean for norm in norms}, batches)
    for norm in norms:
        mean, var = found[norm.mean]
        for name, values in ((norm.scale, (var + _EPSILON).sqrt()), (norm.shift, mean), (norm.mean, mean), (norm.var, var)):
            parameter_of(module, name).copy_(values)


@torch.no_grad()
def update_batchnorm(module: GraphModule, batches: Iterable[Mapping[str, Any]]) -> None:
    """Give all batch normalisations the statistics of the data at the present weights, as `torch.optim.swa_utils.update_bn`.

    The module is in evaluation mode afterwards.
    """
    steps = {mean: var for _, mean, var in _normalisations(module)}
    for mean, values in _statistics(module.train(), set(steps), batches).items():
        for name, value in zip((mean, steps[mean]), values, strict=True):
            parameter_of(module, name).copy_(value)
    module.eval()


def _normalisations(module: GraphModule) -> Iterable[tuple[str, str, str]]:
    """For each batch normalisation that follows the mode, the names of its input, its mean and its variance."""
    constants = module.program.constants
    for step in module.program.steps:
        if step.node.op == "BatchNormalization" and step.trains and step.inputs[3] in constants:
            yield step.inputs[0], constants[step.inputs[3]], constants[step.inputs[4]]


def _statistics(module: GraphModule, means: set[str], batches: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel of the inputs of normalisations, by the names of their means. [channels], float64"""
    reads = {mean: value for value, mean, _ in _normalisations(module) if mean in means}
    sums: dict[str, list[Tensor]] = {}
    count = 0
    for feeds in batches if reads else ():
        values = module.compute(feeds, tuple(reads.values()))
        count += 1
        for mean, name in reads.items():
            x = values[name].double().transpose(0, 1).flatten(1)
            part = [x.mean(1), x.square().mean(1)]
            sums[mean] = [a + b for a, b in zip(sums[mean], part, strict=True)] if mean in sums else part
    return {
        mean: (first / count, (second / count - (first / count).square()).clamp_min(0)) for mean, (first, second) in sums.items()
    }


@torch.no_grad()
def fold_norms(module: GraphModule, norms: Iterable[RestoredNorm]) -> None:
    """Multiply normalisations into the weights and biases before them; they are the identity afterwards, and zeros
    are still zero.

    Masks must be gone: see `onnxprune.training.masks.remove_masks`.
    """
    for norm in norms:
        weight, bias, scale, shift, mean, var = (
            module.value_of(name) for name in (norm.weight, norm.bias, norm.scale, norm.shift, norm.mean, norm.var)
        )
        factor = scale.double() * torch.rsqrt(var.double() + _EPSILON)
        bias.copy_((bias.double() - mean) * factor + shift)
        if norm.groups:
            parts = weight.reshape(norm.groups, -1, *weight.shape[1:])
            each = factor.reshape(norm.groups, 1, -1, *[1] * (weight.dim() - 2))
            weight.copy_((parts * each).reshape(weight.shape))
        else:
            weight.mul_(factor.reshape(-1, *[1] * (weight.dim() - 1)))
        weight.add_(0.0)  # where a factor is negative zeros became -0
        for tensor, entry in ((scale, 1), (shift, 0), (mean, 0), (var, 1 - _EPSILON)):
            tensor.fill_(entry)
