"""Normalisations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.registry import Node, op
from onnxprune.torch.tensors import dtype_of


@op("BatchNormalization", weights=(1, 2), statistics=(3, 4), trains=True)
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, training: bool
) -> Tensor | tuple[Tensor, ...]:
    """In train mode by the statistics of the batch, which move those of the layer: as PyTorch does, the variance unbiased.

    A node that the graph itself keeps in training mode puts its new statistics out, by the formulas of the standard.
    """
    epsilon, kept = node.attr("epsilon", 1e-5), node.attr("momentum", 0.9)
    if node.attr("training_mode", 0):
        axes = [0, *range(2, x.dim())]
        batch_mean, batch_var = x.mean(axes), x.var(axes, unbiased=False)
        y = F.batch_norm(x, None, None, scale.to(x.dtype), bias.to(x.dtype), training=True, eps=epsilon)
        return y, mean * kept + batch_mean * (1 - kept), var * kept + batch_var * (1 - kept)
    if not training and (scale.dtype != x.dtype or mean.requires_grad or var.requires_grad):
        shape = [1, -1, *[1] * (x.dim() - 2)]
        factor = scale * torch.rsqrt(var + epsilon)
        return (x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)).to(x.dtype)
    return F.batch_norm(x, mean, var, scale, bias, training=training, momentum=1 - kept, eps=epsilon)


@op("InstanceNormalization", weights=(1, 2))
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    # as one group per channel: PyTorch's instance_norm refuses a single position
    return F.group_norm(x, x.shape[1], scale, bias, node.attr("epsilon", 1e-5))


@op("LayerNormalization", weights=(1, 2))
def layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
    axis, epsilon = node.attr("axis", -1) % x.dim(), node.attr("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    if node.outputs == 1 and list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    axes = list(range(axis, x.dim()))
    wide = x.to(dtype_of(node.attr("stash_type", 1))) if x.dtype != torch.float64 else x
    mean = wide.mean(axes, keepdim=True)
    inverse = torch.rsqrt((wide - mean).square().mean(axes, keepdim=True) + epsilon)
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@op("RMSNormalization", "SimplifiedLayerNormalization", weights=(1,))
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(node.attr("axis", -1) % x.dim(), x.dim()))
    wide = x.to(dtype_of(node.attr("stash_type", 1))) if x.dtype != torch.float64 else x
    normal = wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + node.attr("epsilon", 1e-5))
    return normal.to(scale.dtype) * scale


@op("GroupNormalization", since=18, until=20, weights=(1, 2))
def group_normalization_by_group(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias have one entry per group."""
    groups = node.attr("num_groups")
    each = x.shape[1] // groups
    return F.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), node.attr("epsilon", 1e-5))


@op("GroupNormalization", since=21, weights=(1, 2))
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, node.attr("num_groups"), scale, bias, node.attr("epsilon", 1e-5))


@op("LRN")
def lrn(node: Node, x: Tensor) -> Tensor:
    """The window over channels has one more after than before where its size is even."""
    size = node.attr("size")
    squares = x.square().flatten(2).unsqueeze(1)  # n 1 c p
    squares = F.pad(squares, [0, 0, (size - 1) // 2, size // 2])
    mean = F.avg_pool2d(squares, [size, 1], 1).reshape(x.shape)
    base: Tensor = node.attr("bias", 1.0) + node.attr("alpha", 1e-4) * mean
    return x / base.pow(node.attr("beta", 0.75))


@op("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = node.attr("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@op("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, node.attr("p", 2), node.attr("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("Softmax", "LogSoftmax", "Hardmax", until=12)
def softmax_of_rows(node: Node, x: Tensor) -> Tensor:
    """Before version 13 everything from the axis on is one row."""
    axis = node.attr("axis", 1) % max(x.dim(), 1)
    rows = x.reshape(math.prod(x.shape[:axis]), -1)
    return _softmax(node.op, rows, 1).reshape(x.shape)


@op("Softmax", "LogSoftmax", "Hardmax", since=13)
def softmax(node: Node, x: Tensor) -> Tensor:
    return _softmax(node.op, x, node.attr("axis", -1))


def _softmax(op: str, x: Tensor, axis: int) -> Tensor:
    if op == "Hardmax":
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)
    return torch.softmax(x, axis) if op == "Softmax" else torch.log_softmax(x, axis)


# Losses that are part of a graph.


@op("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: Node, x: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    ignored = node.attr("ignore_index", -100)  # a label that there is not
    return F.nll_loss(x, labels.long(), weight, ignore_index=ignored, reduction=node.attr("reduction", "mean"))


@op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(node: Node, x: Tensor, labels: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    logs = torch.log_softmax(x, 1)
    return negative_log_likelihood(node, logs, labels, weight), logs
