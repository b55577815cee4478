"""Masks that stay: pruned weights are zero whatever an optimizer does, because nobody ever reads what it made of them.

A mask is a parametrization: layers read ``where(keep, weight, 0)``, so that neither momentum nor weight decay can revive what is
pruned, and the gradient there is zero. `strip` puts the masked values in place of the weights and takes the machinery away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onnxprune.torch.module import GraphModule
from onnxprune.torch.roles import Role

__all__ = ["ZEROS", "Mask", "ScoredMask", "mask", "masks_of", "of_zeros", "parametrized", "score", "sparsity", "strip"]

ZEROS = 0.01
"""Share of zeros from which they are taken for pruned weights: training alone leaves hardly any exact zero."""


class Mask(nn.Module):
    """Zero where ``keep`` is false.

    Attributes:
        keep: bool, of the shape of the weight.
    """

    keep: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep.clone())

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.keep, weight, 0.0)  # not a product: that would leave -0 and NaN

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class _Straight(torch.autograd.Function):
    """``where(keep, weight, 0)`` whose gradient passes straight through the choice of ``keep`` to the scores."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: Tensor, scores: Tensor, keep: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(weight, keep)
        return torch.where(keep, weight, 0.0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, keep = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.where(keep, grad, 0.0), grad * weight, None


class ScoredMask(Mask):
    """A mask that is learnt: scores are trained, and who uses it refreshes ``keep`` from them.

    The gradient of a score is that of the masked weight times the weight, as in movement pruning (Sanh et al. 2020) and for the
    supermasks of Ramanujan et al. 2020.

    Attributes:
        scores: of the shape of the weight.
    """

    def __init__(self, keep: Tensor, scores: Tensor) -> None:
        super().__init__(keep)
        self.scores = nn.Parameter(scores.clone())

    def forward(self, weight: Tensor) -> Tensor:
        return cast("Tensor", _Straight.apply(weight, self.scores, self.keep))  # type: ignore[no-untyped-call]


def mask(module: GraphModule, keep: Mapping[str, Tensor]) -> None:
    """Weights are zero where ``keep`` is false, from now on; a mask that is there gives way.

    Args:
        module: the module.
        keep: bool, by the names of weights in the graph.

    Raises:
        KeyError: the graph has no such weight.
    """
    found = dict(_masks(module))
    for name, kept in keep.items():
        if name in found:
            found[name].keep.copy_(kept)
        else:
            parametrize.register_parametrization(*module.holder_of(name), Mask(kept.to(module.device)))


def score(module: GraphModule, scores: Mapping[str, Tensor]) -> dict[str, ScoredMask]:
    """Masks that are learnt, in place of those that are there; they keep everything at first, or what those kept."""
    known, found = masks_of(module), {}
    for name, values in scores.items():
        if name in known:
            parametrize.remove_parametrizations(*module.holder_of(name), leave_parametrized=False)
        keep = known.get(name, torch.ones_like(values, dtype=torch.bool))
        found[name] = ScoredMask(keep, values)
        parametrize.register_parametrization(*module.holder_of(name), found[name])
    return found


def masks_of(module: GraphModule) -> dict[str, Tensor]:
    """What masks keep, by the names of weights in the graph; the buffers themselves."""
    return {name: found.keep for name, found in _masks(module)}


def _masks(module: GraphModule) -> Iterator[tuple[str, Mask]]:
    for name, constant in module.constants.items():
        if constant.role is not Role.WEIGHT:
            continue
        holder, attribute = module.holder_of(name)
        if parametrize.is_parametrized(holder, attribute):
            yield from ((name, one) for one in holder.parametrizations[attribute] if isinstance(one, Mask))  # type: ignore[index]


def parametrized(module: GraphModule, name: str) -> Tensor:
    """The parameter behind a weight, which an optimizer sees: without its mask."""
    holder, attribute = module.holder_of(name)
    if parametrize.is_parametrized(holder, attribute):
        return cast("Tensor", holder.parametrizations[attribute].original)  # type: ignore[index, union-attr]
    return cast("Tensor", getattr(holder, attribute))


def strip(module: GraphModule) -> None:
    """Weights are what the masks leave of them, and nothing of the masks is left."""
    for name in list(masks_of(module)):
        holder, attribute = module.holder_of(name)
        parametrize.remove_parametrizations(holder, attribute, leave_parametrized=True)


def of_zeros(module: GraphModule, share: float = ZEROS) -> dict[str, Tensor]:
    """Masks that keep the zeros of weights with more than one axis, of which at least ``share`` are zero."""
    found = {}
    for name, weight in module.weights().items():
        keep = weight.detach() != 0
        if weight.dim() > 1 and not keep.all() and float((~keep).float().mean()) >= share:
            found[name] = keep
    return found


def sparsity(tensors: Mapping[str, Tensor]) -> float:
    """The share of zeros, or of what is not kept, in some weights or masks together."""
    size = sum(tensor.numel() for tensor in tensors.values())
    kept = sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())
    return 1 - kept / size if size else 0.0
