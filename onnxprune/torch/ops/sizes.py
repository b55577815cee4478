"""Size arithmetic: operators that read or spell sizes; the host computes with their outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.registry import Node, ints, op
from onnxprune.torch.tensors import dtype_of


@op("Shape", host=(0,))
def shape(node: Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)
    return torch.tensor(sizes[slice(node.attr("start", 0), node.attr("end"))], dtype=torch.int64)


@op("Size", host=(0,))
def size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@op("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.attr("value")
    if value is None:
        return torch.zeros(ints(shape), device=shape.device)
    return torch.full(ints(shape), value.item(), dtype=value.dtype, device=shape.device)


@op("Range", host=(0, 1, 2))
def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, step = start.item(), delta.item()
    count = max(-int(-(limit.item() - first) // step), 0)
    dtype, device = start.dtype, start.device
    if dtype.is_floating_point:
        return start + delta * torch.arange(count, dtype=dtype, device=device)
    return torch.arange(count, dtype=dtype, device=device) * int(step) + int(first)


@op("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    dtype, k = node.attr("dtype"), node.attr("k", 0)
    ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else dtype_of(dtype), device=x.device)
    return torch.tril(torch.triu(ones, k), k)
