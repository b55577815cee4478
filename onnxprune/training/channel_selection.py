"""Chooses the channels that stay while a module is trained, by scores of weights; `weight_selection` chooses weights.

The score of a channel is the sum over the weights that belong to it, over the mean of its group. The number of channels that each
group keeps follows from the target for the whole model, as without training (`onnxprune.pruning.allocation`). All weights of a
channel that goes are masked, in filters, slices and biases, so that cutting it out after the training changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.axes.plan import Plan
from onnxprune.errors import TargetError
from onnxprune.options.targets import Align, Target
from onnxprune.pruning.allocation import allocate
from onnxprune.pruning.cost import CostModel
from onnxprune.training import masks
from onnxprune.training.group_lasso import Entries

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup, Member
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.torch.module import GraphModule

__all__ = ["ChannelSelection"]


class ChannelSelection:
    """Chooses channels."""

    def __init__(
        self,
        module: GraphModule,
        model: Model,
        coupling: Coupling,
        batch: int,
        *,
        metric: str,
        scope: str,
        align: Align,
        whole: Collection[str] = (),
    ) -> None:
        """Find the weights of each channel, and give them masks, which keep everything at first.

        Args:
            module: made from ``model``.
            model: a normalised model.
            coupling: its groups.
            batch: the batch size of its shapes.
            metric: that a share is of: ``macs``, ``params``, ``size`` or ``channels``.
            scope: which groups are ranked together, see `onnxprune.pruning.allocation`.
            align: what widths are multiples of.
            whole: groups that lose nothing, by id.

        Raises:
            TargetError: there is no group that could lose anything.
        """
        free = dataclasses.replace(coupling, groups=tuple(group for group in coupling.groups if group.id not in whole))
        self._module, self._entries = module, Entries(module, free, _trained)
        self._coupling = dataclasses.replace(free, groups=tuple(g for g in free.groups if g.id in self._entries.sizes))
        if not self._coupling.groups:
            raise TargetError(f"{model.name}: no group of channels can be masked; inspect says why")
        costs = CostModel(model, self._coupling, batch)
        self._prices = costs.of("macs" if metric == "channels" else metric)  # unused where channels are counted
        self._metric, self._scope, self._align = metric, scope, align
        known = masks.masks_of(module)
        weights = {name: module.value_of(name) for name in self._entries.names if name not in known}
        masks.apply_masks(module, {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()})

    def __call__(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The channels with the highest scores, as masks of all their weights.

        Args:
            scores: of the weights of layers, by name; of any sign.
            share: of the metric that goes.

        Returns:
            True at weights that stay, by name.

        Raises:
            TargetError: the share cannot be reached; says what is reachable.
        """
        parts = {name: part / max(float(np.abs(part).mean()), 1e-30) for name, part in self._parts(self._entries.totals(scores))}
        target = Target(self._metric, round(1 - share, 9))
        found = allocate(self._coupling, parts, self._prices, target, scope=self._scope, align=self._align)
        sizes = {name: np.arange(size) for name, size in self._entries.sizes.items()}
        kept = [np.isin(every, found.keep.get(name, every)) for name, every in sizes.items()]
        stays = torch.from_numpy(np.concatenate(kept)).to(self._entries.device)
        result = {name: torch.ones_like(self._module.value_of(name), dtype=torch.bool) for name in self._entries.names}
        for name, along in self._entries.spread(stays.float(), 1.0):
            result[name] &= along > 0
        return result

    def plan(self, weights: Mapping[str, Tensor]) -> Plan:
        """The plan that cuts out the channels whose weights are all masked.

        Args:
            weights: of layers, after training, by name.
        """
        left = self._parts(self._entries.totals({name: weight.detach().abs() for name, weight in weights.items()}))
        kept = {name: np.flatnonzero(part) for name, part in left}
        return Plan({name: one for name, one in kept.items() if 0 < len(one) < self._entries.sizes[name]})

    def _parts(self, totals: Tensor) -> Iterator[tuple[str, Array]]:
        """Split a vector over the positions of all groups into one for each group."""
        pieces = totals.double().cpu().split([*self._entries.sizes.values()])
        yield from zip(self._entries.sizes, (np.asarray(piece.numpy()) for piece in pieces), strict=True)


def _trained(group: CouplingGroup, weights: Mapping[str, Tensor]) -> list[Member]:
    return [member for member in group.members if member.value in weights]
