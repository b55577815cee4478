"""Masks that stay: pruned weights are zero whatever an optimizer does, because no layer reads its changes to them.

A mask is a parametrization: layers read ``where(keep, weight, 0)``, so that neither momentum nor weight decay can revive what is
pruned, and the gradient there is zero. `remove_masks` puts the masked values in place of the weights and removes
the parametrizations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onnxprune.torch.module import GraphModule
from onnxprune.torch.roles import Role

__all__ = [
    "ZEROS",
    "ScoredMask",
    "WeightMask",
    "add_scored_masks",
    "apply_masks",
    "masks_of",
    "masks_of_zeros",
    "parameter_of",
    "remove_masks",
    "sparsity",
]

ZEROS = 0.01
"""Share of zeros from which on zeros count as pruned weights: training alone leaves hardly any exact zero."""


class WeightMask(nn.Module):
    """A parametrization of a weight that is zero where ``keep`` is false.

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


class ScoredMask(WeightMask):
    """A mask that is learnt: scores are trained, and the caller sets ``keep`` by them.

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


def apply_masks(module: GraphModule, keep: Mapping[str, Tensor]) -> None:
    """Make weights zero where ``keep`` is false, from now on, in place of masks that they have.

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
            parametrize.register_parametrization(*module.holder_of(name), WeightMask(kept.to(module.device)))


def add_scored_masks(module: GraphModule, scores: Mapping[str, Tensor]) -> dict[str, ScoredMask]:
    """Add masks that are learnt, in place of those that weights have; at first they keep the same weights, or all."""
    known, found = masks_of(module), {}
    for name, values in scores.items():
        if name in known:
            parametrize.remove_parametrizations(*module.holder_of(name), leave_parametrized=False)
        keep = known.get(name, torch.ones_like(values, dtype=torch.bool))
        found[name] = ScoredMask(keep, values)
        parametrize.register_parametrization(*module.holder_of(name), found[name])
    return found


def masks_of(module: GraphModule) -> dict[str, Tensor]:
    """The buffers ``keep`` of all masks, by the names of weights in the graph."""
    return {name: found.keep for name, found in _masks(module)}


def _masks(module: GraphModule) -> Iterator[tuple[str, WeightMask]]:
    for name, constant in module.constants.items():
        if constant.role is not Role.WEIGHT:
            continue
        holder, attribute = module.holder_of(name)
        if parametrize.is_parametrized(holder, attribute):
            yield from ((name, one) for one in holder.parametrizations[attribute] if isinstance(one, WeightMask))  # type: ignore[index]


def parameter_of(module: GraphModule, name: str) -> Tensor:
    """The parameter behind a weight, which an optimizer sees: without its mask."""
    holder, attribute = module.holder_of(name)
    if parametrize.is_parametrized(holder, attribute):
        return cast("Tensor", holder.parametrizations[attribute].original)  # type: ignore[index, union-attr]
    return cast("Tensor", getattr(holder, attribute))


def remove_masks(module: GraphModule) -> None:
    """Replace weights by their masked values and remove the masks."""
    for name in list(masks_of(module)):
        holder, attribute = module.holder_of(name)
        parametrize.remove_parametrizations(holder, attribute, leave_parametrized=True)


def masks_of_zeros(module: GraphModule, share: float = ZEROS) -> dict[str, Tensor]:
    """Masks that keep the zeros of weights with more than one axis, of which at least ``share`` are zero."""
    found = {}
    for name, weight in module.weights().items():
        keep = weight.detach() != 0
        if weight.dim() > 1 and not keep.all() and float((~keep).float().mean()) >= share:
            found[name] = keep
    return found


def sparsity(tensors: Mapping[str, Tensor]) -> float:
    """The share of zeros in some weights together, or of false in masks."""
    size = sum(tensor.numel() for tensor in tensors.values())
    kept = sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())
    return 1 - kept / size if size else 0.0
