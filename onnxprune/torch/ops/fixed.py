"""Operators that choose: positions and counts that depend on the data, lists of tensors, random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxprune.torch.registry import Node, ints, op
from onnxprune.torch.tensors import dtype_of

_BLOCK = 512
"""Boxes that are compared with each other at a time."""


@op("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    return x.reshape(1).nonzero().T if x.dim() == 0 else x.nonzero().T


@op("Compress")
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    axis = node.attr("axis")
    places = condition.nonzero()[:, 0]
    return x.reshape(-1).index_select(0, places) if axis is None else x.index_select(axis, places)


@op("Unique")
def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    axis = node.attr("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    y, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=axis)
    first = torch.full_like(counts, len(inverse)).scatter_reduce(
        0, inverse, torch.arange(len(inverse), device=x.device), "amin", include_self=True
    )
    if node.attr("sorted", 1):
        return y, first, inverse, counts
    order = first.argsort()
    return y.index_select(axis, order), first[order], order.argsort()[inverse], counts[order]


@op("NonMaxSuppression", host=(2, 3, 4))
def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    limit: Tensor | None = None,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """Of boxes of one class that overlap more than allowed the best stays, at most ``limit`` of each class. [n, 3]"""
    boxes, scores = boxes.detach(), scores.detach()
    count = 0 if limit is None else int(limit)
    threshold = 0.0 if overlap is None else float(overlap)
    if node.attr("center_point_box", 0):
        x, y, w, h = boxes.unbind(-1)
        corners = torch.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], -1)
    else:
        one, other = boxes[..., :2], boxes[..., 2:]
        corners = torch.cat([torch.minimum(one, other), torch.maximum(one, other)], -1)
    floor = None if least is None else float(least)
    found = []
    for image in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            kept = _kept(corners[image], scores[image, kind], count, threshold, floor)
            place = torch.tensor([[image, kind]], device=kept.device).expand(len(kept), 2)
            found.append(torch.cat([place, kept[:, None]], 1))
    return torch.cat(found) if found else torch.empty(0, 3, dtype=torch.int64, device=boxes.device)


def _kept(corners: Tensor, scores: Tensor, count: int, threshold: float, floor: float | None) -> Tensor:
    """The greedy choice, best first, a block at a time: what a block keeps closes boxes behind it all at once. [kept]"""
    order = scores.argsort(descending=True, stable=True)
    if floor is not None:
        order = order[scores[order] > floor]
    kept, left = [], count
    while left > 0 and len(order):
        block, order = order[:_BLOCK], order[_BLOCK:]
        close = (_overlaps(corners[block], corners[block]) > threshold).cpu().numpy()
        stays = np.ones(len(block), bool)
        for at in range(len(block)):
            if stays[at]:
                stays[at + 1 :] &= ~close[at, at + 1 :]
        chosen = block[torch.from_numpy(stays).to(block.device)][:left]
        kept.append(chosen)
        left -= len(chosen)
        order = order[~(_overlaps(corners[chosen], corners[order]) > threshold).any(0)]
    return torch.cat(kept) if kept else order[:0]


def _overlaps(ones: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes [n, 4] with others [m, 4], NaN between empty ones. [n, m]"""
    (top, left, bottom, right), far = (x[:, None] for x in ones.T), others.T
    height = torch.minimum(bottom, far[2]).sub_(torch.maximum(top, far[0])).clamp_(min=0)
    common = torch.minimum(right, far[3]).sub_(torch.maximum(left, far[1])).clamp_(min=0).mul_(height)
    union = ((bottom - top) * (right - left) + (far[2] - far[0]) * (far[3] - far[1])).sub_(common)
    return common.div_(union)


# Lists of tensors.


@op("SequenceConstruct")
def sequence_construct(node: Node, *xs: Tensor) -> list[Tensor]:
    return list(xs)


@op("SequenceEmpty")
def sequence_empty(node: Node) -> list[Tensor]:
    return []


@op("SequenceAt", host=(1,))
def sequence_at(node: Node, xs: list[Tensor], position: Tensor) -> Tensor:
    return xs[int(position)]


@op("SequenceInsert", host=(2,))
def sequence_insert(node: Node, xs: list[Tensor], x: Tensor, position: Tensor | None = None) -> list[Tensor]:
    at = len(xs) if position is None else int(position)
    at += len(xs) if at < 0 else 0
    return [*xs[:at], x, *xs[at:]]


@op("SequenceErase", host=(1,))
def sequence_erase(node: Node, xs: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = (-1 if position is None else int(position)) % len(xs)
    return [*xs[:at], *xs[at + 1 :]]


@op("SequenceLength")
def sequence_length(node: Node, xs: list[Tensor]) -> Tensor:
    return torch.tensor(len(xs))


@op("ConcatFromSequence")
def concat_from_sequence(node: Node, xs: list[Tensor]) -> Tensor:
    return torch.stack(xs, node.attr("axis")) if node.attr("new_axis", 0) else torch.cat(xs, node.attr("axis"))


@op("SplitToSequence", host=(1,))
def split_to_sequence(node: Node, x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    axis = node.attr("axis", 0)
    if sizes is None:
        return list(x.split(1, axis)) if node.attr("keepdims", 1) else list(x.unbind(axis))
    return list(x.split(int(sizes) if sizes.dim() == 0 else ints(sizes), axis))


@op("Optional")
def optional(node: Node, x: Any = None) -> Any:
    return x


@op("OptionalGetElement")
def optional_get_element(node: Node, x: Any) -> Any:
    return x


@op("OptionalHasElement")
def optional_has_element(node: Node, x: Any = None) -> Tensor:
    return torch.tensor(x is not None)


# Random numbers, from PyTorch's generator.


@op("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")
def random(node: Node, x: Tensor | None = None) -> Tensor:
    dtype = node.attr("dtype", 1 if x is None else None)
    kind = dtype_of(dtype) if dtype is not None else torch.float32 if x is None else x.dtype
    shape, device = (node.attr("shape"), None) if x is None else (x.shape, x.device)
    if "Normal" in node.op:
        scale, mean = float(node.attr("scale", 1.0)), float(node.attr("mean", 0.0))
        return torch.randn(shape, dtype=kind, device=device) * scale + mean
    low, high = float(node.attr("low", 0.0)), float(node.attr("high", 1.0))
    return torch.rand(shape, dtype=kind, device=device) * (high - low) + low


@op("Bernoulli")
def bernoulli(node: Node, x: Tensor) -> Tensor:
    dtype = node.attr("dtype")
    return torch.bernoulli(x).to(x.dtype if dtype is None else dtype_of(dtype))
