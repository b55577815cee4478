"""Channels that shrink while a module is trained, until coupling groups are sparse (Fang et al. 2023, "DepGraph", group-SL).

A channel is worth what all weights that go with it are worth: filters that make it, slices that read it. The penalty of the paper
is the sum of the squared norms, each times ``2^(4 (largest - own) / (largest - least))`` of its group, so that the weak shrink up
to sixteen times as fast as the strong, and are next to nothing when surgery comes.

Here it acts on the weights and not through the loss: adaptive optimizers divide each gradient by what it mostly is, which would
take away just that difference between weak and strong (as Loshchilov and Hutter 2019 found of weight decay).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.axes import labels
from onnxprune.torch import masks
from onnxprune.torch.module import GraphModule

if TYPE_CHECKING:
    from onnxprune.coupling import Coupling, CouplingGroup, Member

__all__ = ["GroupNorms"]

_NORMS = {"BatchNormalization", "InstanceNormalization"}
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
        self._lengths = [len(one) for one in places]
        self._count, device = start, module.device
        # What belongs to no position of the group (its neighbours on a concatenated axis) goes to a place behind all others.
        found = np.concatenate(places) if places else np.zeros(0, np.int64)
        self._places = torch.from_numpy(np.where(found >= 0, found, start)).to(device)
        self._owners = torch.from_numpy(np.concatenate(owners) if owners else np.zeros(0, np.int64)).to(device)

    @torch.no_grad()
    def squared(self) -> Tensor:
        """For each position of each group the sum of the squares of all weights that go with it. [positions of all groups]"""
        weights = self._module.weights()
        squares = {name: weights[name].float().square() for name in dict.fromkeys(name for name, _ in self._reads)}
        sums = [squares[name].movedim(axis, 0).reshape(weights[name].shape[axis], -1).sum(1) for name, axis in self._reads]
        total = torch.zeros(self._count + 1, device=self._places.device)
        return (total.index_add(0, self._places, torch.cat(sums)) if sums else total)[:-1]

    @torch.no_grad()
    def shrink(self, rate: float) -> None:
        """Shrink each weight by ``exp(-rate * pull)`` for each channel it goes with: a step along the gradient of the penalty."""
        keep = torch.exp(-rate * self.pull(self.squared()))
        factors = torch.cat([keep, torch.ones(1, device=keep.device)])[self._places].split(self._lengths)
        for (name, axis), factor in zip(self._reads, factors, strict=True):
            weight = masks.parametrized(self._module, name)
            weight *= factor.reshape([-1 if at == axis else 1 for at in range(weight.dim())])

    def pull(self, norms: Tensor) -> Tensor:
        """What the penalty multiplies each squared norm by: 1 for the strongest position of a group, 16 for its weakest."""
        ends = [
            torch.zeros(len(self.sizes), device=norms.device).scatter_reduce(0, self._owners, norms, end, include_self=False)
            for end in ("amax", "amin")
        ]
        most, least = (end[self._owners] for end in ends)
        return torch.exp2(_ALPHA * (most - norms) / (most - least).clamp(min=1e-30))


def _members(group: CouplingGroup, weights: dict[str, Tensor]) -> list[Member]:
    """The members that count: matrices that are trained, and scales of normalisations, behind which the size of a filter says
    nothing; or all that is trained where there are none.
    """
    trained = [member for member in group.members if member.value in weights]
    scales = [member for member in trained if member.op in _NORMS and member.position == 1]
    return [member for member in trained if weights[member.value].dim() > 1 or member in scales] or trained
