"""Which entries of weights go with which channel; and channels that shrink while a module is trained, until coupling groups are
sparse (Fang et al. 2023, "DepGraph", group-SL).

A channel is worth what all weights that go with it are worth: filters that make it, slices that read it. The penalty of the paper
is the sum of the squared norms, each times ``2^(4 (largest - own) / (largest - least))`` of its group, so that the weak shrink up
to sixteen times as fast as the strong, and are next to nothing when surgery comes.

Here it acts on the weights and not through the loss: adaptive optimizers divide each gradient by what it mostly is, which would
take away just that difference between weak and strong (as Loshchilov and Hutter 2019 found of weight decay).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.axes.factors import labels
from onnxprune.torch.module import GraphModule
from onnxprune.training import masks

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup, Member

__all__ = ["Entries", "GroupNorms"]

_NORMS = {"BatchNormalization", "InstanceNormalization"}
_ALPHA = 4.0
"""The weakest channel of a group is shrunk ``2 ** alpha`` times as fast as the strongest."""


class Entries:
    """For each position of each coupling group what goes with it: as one vector over the positions of all groups.

    Groups without a member are left out.

    Attributes:
        sizes: how many positions each group has, by its id, in the order of the vector.
        names: the weights, each once.
    """

    def __init__(
        self, module: GraphModule, coupling: Coupling, members: Callable[[CouplingGroup, Mapping[str, Tensor]], list[Member]]
    ) -> None:
        """Work out which entries go with which position.

        Args:
            module: made from the model that was coupled, on its device.
            coupling: the groups.
            members: of a group those that count, given all weights that are trained.
        """
        self.device, weights = module.device, module.weights()
        self.sizes: dict[str, int] = {}
        self._reads: list[tuple[str, int, Tensor]] = []
        self._ranks = {name: weight.dim() for name, weight in weights.items()}
        self._count = 0
        for group in coupling.groups:
            chosen = members(group, weights)
            if not chosen:
                continue
            for member in chosen:
                digits = labels(coupling.axes[member.value][member.axis], group.factor)
                # What belongs to no position (neighbours on a concatenated axis) goes to a place of its own, before all others.
                places = torch.from_numpy(np.where(digits >= 0, digits + self._count + 1, 0)).to(self.device)
                self._reads.append((member.value, member.axis, places))
            self.sizes[group.id] = group.size
            self._count += group.size
        self.names = tuple(dict.fromkeys(name for name, _, _ in self._reads))

    @torch.no_grad()
    def totals(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The sums of the entries that go with each position, of tensors in the shapes of weights, by name."""
        total = torch.zeros(self._count + 1, device=self.device)
        for name, axis, places in self._reads:
            if name in tensors:
                total.index_add_(0, places, tensors[name].float().movedim(axis, 0).reshape(len(places), -1).sum(1))
        return total[1:]

    def spread(self, values: Tensor, rest: float) -> Iterator[tuple[str, Tensor]]:
        """Values of positions along each axis of a weight that a group runs along, in a shape that broadcasts to the weight.

        Args:
            values: one for each position.
            rest: of entries that belong to no position.
        """
        padded = torch.cat([values.new_full((1,), rest), values])
        for name, axis, places in self._reads:
            yield name, padded[places].reshape([-1 if at == axis else 1 for at in range(self._ranks[name])])


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
        self._module, self._entries = module, Entries(module, coupling, _members)
        self.sizes = self._entries.sizes
        owners = [np.full(size, number) for number, size in enumerate(self.sizes.values())]
        self._owners = torch.from_numpy(np.concatenate(owners) if owners else np.zeros(0, np.int64)).to(module.device)

    @torch.no_grad()
    def squared(self) -> Tensor:
        """For each position of each group the sum of the squares of all weights that go with it. [positions of all groups]"""
        weights = self._module.weights()
        return self._entries.totals({name: weights[name].float().square() for name in self._entries.names})

    @torch.no_grad()
    def shrink(self, rate: float) -> None:
        """Shrink each weight by ``exp(-rate * pull)`` for each channel it goes with: a step along the gradient of the penalty."""
        for name, factor in self._entries.spread(torch.exp(-rate * self.pull(self.squared())), 1.0):
            weight = masks.parametrized(self._module, name)
            weight *= factor

    def pull(self, norms: Tensor) -> Tensor:
        """What the penalty multiplies each squared norm by: 1 for the strongest position of a group, 16 for its weakest."""
        ends = [
            torch.zeros(len(self.sizes), device=norms.device).scatter_reduce(0, self._owners, norms, end, include_self=False)
            for end in ("amax", "amin")
        ]
        most, least = (end[self._owners] for end in ends)
        return torch.exp2(_ALPHA * (most - norms) / (most - least).clamp(min=1e-30))


def _members(group: CouplingGroup, weights: Mapping[str, Tensor]) -> list[Member]:
    """The members that count: matrices that are trained, and scales of normalisations, behind which the size of a filter says
    nothing; or all that is trained where there are none.
    """
    trained = [member for member in group.members if member.value in weights]
    scales = [member for member in trained if member.op in _NORMS and member.position == 1]
    return [member for member in trained if weights[member.value].dim() > 1 or member in scales] or trained
