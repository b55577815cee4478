"""Reductions, running sums and choices along an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.torch.registry import Node, ints, op

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.to(torch.float64).mean(axes, keepdim=keep).to(x.dtype)


def _extreme(largest: bool) -> Reduction:
    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.dtype == torch.bool:
            return (torch.any if largest else torch.all)(x, axes, keepdim=keep)
        if any(x.shape[axis] == 0 for axis in axes):
            limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
            end = limits.min if largest else limits.max
            if x.is_floating_point():
                end = -torch.inf if largest else torch.inf
            return x.sum(axes, keepdim=keep).fill_(end)
        return (torch.amax if largest else torch.amin)(x, axes, keepdim=keep)

    return reduce


REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": lambda x, axes, keep: (
        torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
        if x.is_floating_point()
        else x.square().sum(axes, keepdim=keep).sqrt().to(x.dtype)
    ),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": _extreme(largest=True),
    "ReduceMean": _mean,
    "ReduceMin": _extreme(largest=False),
    "ReduceProd": _prod,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep, dtype=x.dtype),
}


@op(*REDUCTIONS, host=(1,))
def reduction(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = node.attr("axes") if axes is None else ints(axes)
    if not chosen:
        if node.attr("noop_with_empty_axes", 0):
            return _elementwise(node.op, x)
        chosen = list(range(x.dim()))
    if not chosen:  # of a scalar there is nothing to reduce
        return _elementwise(node.op, x)
    return REDUCTIONS[node.op](x, [axis % x.dim() for axis in chosen], bool(node.attr("keepdims", 1)))


def _elementwise(op: str, x: Tensor) -> Tensor:
    """The result of a reduction over no axis."""
    each: dict[str, Callable[[Tensor], Tensor]] = {
        "ReduceL1": torch.abs, "ReduceL2": torch.abs, "ReduceLogSum": torch.log, "ReduceSumSquare": torch.square,
    }  # fmt: skip
    return each[op](x) if op in each else x


@op("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    axis, keep = node.attr("axis", 0), bool(node.attr("keepdims", 1))
    last = bool(node.attr("select_last_index", 0))
    line = x.flip(axis) if last else x
    y = line.argmax(axis, keep) if node.op == "ArgMax" else line.argmin(axis, keep)
    return x.shape[axis] - 1 - y if last else y


@op("CumSum", "CumProd", host=(1,))
def cumulative(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    x = x.flip(along) if node.attr("reverse", 0) else x
    y = torch.cumsum(x, along, dtype=x.dtype) if node.op == "CumSum" else torch.cumprod(x, along, dtype=x.dtype)
    if node.attr("exclusive", 0):
        first = torch.full_like(y.narrow(along, 0, 1), 0 if node.op == "CumSum" else 1)
        y = torch.cat([first, y.narrow(along, 0, y.shape[along] - 1)], along)
    return y.flip(along) if node.attr("reverse", 0) else y


@op("TopK", host=(1,))
def top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Ties go to the lower index, as the standard asks: PyTorch's topk promises no order."""
    axis, count = node.attr("axis", -1), int(k)
    values, indices = torch.sort(x, dim=int(axis), descending=bool(node.attr("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
