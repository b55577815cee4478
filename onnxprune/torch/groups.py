"""Norms of the channels of a module, for a penalty that makes whole coupling groups sparse (Fang et al. 2023, "DepGraph").

A channel is worth what all weights that go with it are worth: filters that make it, slices that read it. The penalty is the sum
of the squared norms, each times ``2^(4 (largest - own) / (largest - least))`` of its group, so that the weak shrink up to sixteen
times as fast as the strong, and are gone when surgery comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.axes import labels
from onnxprune.torch.module import GraphModule

if TYPE_CHECKING:
    from onnxprune.coupling import Coupling, CouplingGroup, Member

__all__ = ["GroupNorms"]

_ALPHA = 4.0
"""The weakest channel of a group is shrunk ``2 ** alpha`` times as fast as the strongest."""


class GroupNorms:
    """The squared norms of all channels of all groups, as one vector.

    Groups without a weight that is trained are left out.

    Attributes:
        sizes: how many positions each group has, by its id, in the order of the vector.
    """

    def __init__(self, module: GraphModule, coupling: Coupling) -> None:
        """Work out which entries go with which channel.

        Args:
            module: made from the model that was coupled, on its device.
            coupling: the groups.
        """
        self._module = module
        self.sizes: dict[str, int] = {}
        self._reads: list[tuple[str, int]] = []
        weights, places, owners, start = module.weights(), [], [], 0
        for group in coupling.groups:
            members = _members(group, weights)
            if not members:
                continue
            for member in members:
                digits = labels(coupling.axes[member.value][member.axis], group.factor)
                places.append(np.where(digits >= 0, digits + start, -1))
                self._reads.append((member.value, member.axis))
            owners.append(np.full(group.size, len(self.sizes)))
            self.sizes[group.id] = group.size
            start += group.size
        self._count, device = start, module.device
        # What belongs to no position of the group (its neighbours on a concatenated axis) goes to a place behind all others.
        found = np.concatenate(places) if places else np.zeros(0, np.int64)
        self._places = torch.from_numpy(np.where(found >= 0, found, start)).to(device)
        self._owners = torch.from_numpy(np.concatenate(owners) if owners else np.zeros(0, np.int64)).to(device)

    def squared(self) -> Tensor:
        """For each position of each group the sum of the squares of all weights that go with it. [positions of all groups]"""
        weights = self._module.weights()
        squares = {name: weights[name].float().square() for name in dict.fromkeys(name for name, _ in self._reads)}
        sums = [squares[name].movedim(axis, 0).reshape(weights[name].shape[axis], -1).sum(1) for name, axis in self._reads]
        total = torch.zeros(self._count + 1, device=self._places.device)
        return total.index_add(0, self._places, torch.cat(sums))[:-1] if sums else total[:-1]

    def penalty(self) -> Tensor:
        """The sum of the squared norms, the weak of each group weighing more; a scalar."""
        norms = self.squared()
        return (self.shrinkage(norms.detach()) * norms).sum()

    def shrinkage(self, norms: Tensor) -> Tensor:
        """What each squared norm is multiplied by: 1 for the strongest position of a group, 16 for its weakest."""
        ends = [
            torch.zeros(len(self.sizes), device=norms.device).scatter_reduce(0, self._owners, norms, end, include_self=False)
            for end in ("amax", "amin")
        ]
        most, least = (end[self._owners] for end in ends)
        return torch.exp2(_ALPHA * (most - norms) / (most - least).clamp(min=1e-30))


def _members(group: CouplingGroup, weights: dict[str, Tensor]) -> list[Member]:
    """The members that count, as for criteria: matrices that are trained, or all that is trained where there are none."""
    trained = [member for member in group.members if member.value in weights]
    return [member for member in trained if weights[member.value].dim() > 1] or trained
