"""Which channels stay while a module is trained, by scores of weights: what `onnxprune.training.selection` is for weights.

A channel is worth what the weights that go with it are worth together, in shares of the mean of its group. How many of each group
stay follows from what is asked of the whole model, as where nothing is trained (`onnxprune.pruning.allocation`). A channel that
goes is masked wherever it runs, filters and slices and biases, so that cutting it out of what was trained changes nothing.
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
from onnxprune.options.prune import Target, parse_align
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
        align: str,
        whole: Collection[str] = (),
    ) -> None:
        """Work out what goes with which channel, and mask all of it, so far without a zero.

        Args:
            module: made from ``model``.
            model: a normalised model.
            coupling: its groups.
            batch: that its shapes are of.
            metric: what a share is of: ``macs``, ``params``, ``size`` or ``channels``.
            scope: which groups are ranked together, see `onnxprune.pruning.allocation`.
            align: as of a recipe.
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
        self._prices = costs.of("macs" if metric == "channels" else metric)  # by channels nothing is priced
        self._metric, self._scope, self._align = metric, scope, parse_align(align)
        known = masks.masks_of(module)
        weights = {name: module.value_of(name) for name in self._entries.names if name not in known}
        masks.mask(module, {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()})

    def __call__(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The channels with the highest scores, as masks of all that goes with them.

        Args:
            scores: of the weights of layers, by name; of any sign.
            share: of the metric that goes.

        Returns:
            What stays: bool, by the names of weights.

        Raises:
            TargetError: so much cannot go; says what is reachable.
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
        """What to cut out: the channels of which masks have left nothing.

        Args:
            weights: of layers, as they were trained, by name.
        """
        left = self._parts(self._entries.totals({name: weight.detach().abs() for name, weight in weights.items()}))
        kept = {name: np.flatnonzero(part) for name, part in left}
        return Plan({name: one for name, one in kept.items() if 0 < len(one) < self._entries.sizes[name]})

    def _parts(self, totals: Tensor) -> Iterator[tuple[str, Array]]:
        """A vector over all positions as one for each group."""
        pieces = totals.double().cpu().split([*self._entries.sizes.values()])
        yield from zip(self._entries.sizes, (np.asarray(piece.numpy()) for piece in pieces), strict=True)


def _trained(group: CouplingGroup, weights: Mapping[str, Tensor]) -> list[Member]:
    return [member for member in group.members if member.value in weights]
