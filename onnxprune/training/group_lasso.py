"""The group lasso of DepGraph (Fang et al. 2023, "group-SL"): weak channels shrink while a module is trained.

The norm of a channel is that of all weights that belong to it: the filter that computes it, and the slices that read it. The
penalty is the sum of the squared norms, each times ``2^(4 (largest - own) / (largest - least))`` of its group, so that weak
channels shrink up to sixteen times as fast as strong ones, and are nearly zero when they are pruned.

Here it acts on the weights and not through the loss. Adaptive optimizers divide each gradient by its usual size, which would
remove the difference between weak and strong (as Loshchilov and Hutter 2019 found for weight decay).
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
"""The weakest channel of a group shrinks ``2 ** alpha`` times as fast as the strongest; the value of the paper."""


class Entries:
    """The entries of weights that belong to each position of each coupling group; vectors have the positions of all groups.

    Groups without a member are left out.

    Attributes:
        sizes: how many positions each group has, by its id, in the order of the vector.
        names: the weights, each once.
    """

    def __init__(
        self, module: GraphModule, coupling: Coupling, members: Callable[[CouplingGroup, Mapping[str, Tensor]], list[Member]]
    ) -> None:
        """Find the entries of each position.

        Args:
            module: made from the model that was coupled, on its device.
            coupling: the groups.
            members: returns the members of a group that count, given all weights that are trained.
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
                # Entries of no position (neighbours on a concatenated axis) go to index 0, before all positions.
                places = torch.from_numpy(np.where(digits >= 0, digits + self._count + 1, 0)).to(self.device)
                self._reads.append((member.value, member.axis, places))
            self.sizes[group.id] = group.size
            self._count += group.size
        self.names = tuple(dict.fromkeys(name for name, _, _ in self._reads))

    @torch.no_grad()
    def totals(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The sum of the entries of each position, of tensors in the shapes of weights, by name. [positions of all groups]"""
        total = torch.zeros(self._count + 1, device=self.device)
        for name, axis, places in self._reads:
            if name in tensors:
                total.index_add_(0, places, tensors[name].float().movedim(axis, 0).reshape(len(places), -1).sum(1))
        return total[1:]

    def spread(self, values: Tensor, rest: float) -> Iterator[tuple[str, Tensor]]:
        """Values of positions along each axis of a weight that belongs to a group, in a shape that broadcasts to the weight.

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
        """Find the entries of each channel.

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
        """The sum of the squares of all weights of each position. [positions of all groups]"""
        weights = self._module.weights()
        return self._entries.totals({name: weights[name].float().square() for name in self._entries.names})

    @torch.no_grad()
    def shrink(self, rate: float) -> None:
        """Multiply each weight by ``exp(-rate * pull)`` for each channel that it belongs to: a gradient step on the penalty."""
        for name, factor in self._entries.spread(torch.exp(-rate * self.pull(self.squared())), 1.0):
            weight = masks.parameter_of(self._module, name)
            weight *= factor

    def pull(self, norms: Tensor) -> Tensor:
        """The factor of each squared norm in the penalty: 1 for the strongest position of a group, 16 for its weakest."""
        ends = [
            torch.zeros(len(self.sizes), device=norms.device).scatter_reduce(0, self._owners, norms, end, include_self=False)
            for end in ("amax", "amin")
        ]
        most, least = (end[self._owners] for end in ends)
        return torch.exp2(_ALPHA * (most - norms) / (most - least).clamp(min=1e-30))


def _members(group: CouplingGroup, weights: Mapping[str, Tensor]) -> list[Member]:
    """The members that count: matrices that are trained, and scales of normalisations, behind which the size of a filter does not
    matter; all that is trained where there are none.
    """
    trained = [member for member in group.members if member.value in weights]
    scales = [member for member in trained if member.op in _NORMS and member.position == 1]
    return [member for member in trained if weights[member.value].dim() > 1 or member in scales] or trained
