"""The tensors of a linear node with one axis for each role of their letters: groups, rows, features, outputs.

A letter is a *row* where only data and output carry it, an *output* where only weight and output do, a *feature* where data and
weight do and it is summed over, and a *group* where all three carry it.

Worked example: a convolution with 2 groups of 3 input and 4 output channels, ``n (g i) _ _, (g o) i _ _ -> n (g o) _ _``, reads
data of the shape [5, 6, 7, 7]. Its letters and their sizes are n 5, g 2, i 3, and 7 and 7 for the axes without a letter, which
count as rows: by (group, row, feature) it is [2, 5 * 7 * 7, 3]. The weight [8, 3, 1] by (group, feature, output) is [2, 3, 4].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.equation import ANONYMOUS, Axis

if TYPE_CHECKING:
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.weights import Array

__all__ = ["TAP", "Roles", "named_letters"]

TAP = "tap"
"""The letter of kernel taps: features."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The letters of a node.

    Attributes:
        of: ``row``, ``group``, ``feature`` or ``output`` for each letter.
        sizes: of the letters.
    """

    of: Mapping[str, str]
    sizes: Mapping[str, int]

    @classmethod
    def find(cls, node: NodeAxes, data: int, weight: int) -> Roles | None:
        """Tell roles by the tensors that carry a letter; ``None`` where something is summed over on one side alone."""
        inputs, outputs = node.equation.spelling
        carried = (inputs[data], inputs[weight], outputs[0])
        x, w, y = ({name for axis in tensor for name in named_letters(axis)} for tensor in carried)
        if (x ^ w) - y:
            return None
        both = {name: "group" if name in y else "feature" for name in x & w}
        return cls({name: both.get(name, "output" if name in w else "row") for name in sorted(x | w | y)}, node.sizes)

    def role(self, letter: str) -> str:
        """Tell the role of a letter; an axis without a letter is one of rows."""
        return "feature" if letter == TAP else self.of.get(letter, "row")

    def size(self, role: str) -> int:
        """The product of the sizes of all letters of a role, kernel taps left out."""
        return math.prod(self.sizes[letter] for letter, found in self.of.items() if found == role)

    def letters(self, shape: Sequence[int], spelled: Sequence[str | Axis]) -> tuple[list[str], dict[str, int]]:
        """The letters of a tensor in order and their sizes; an axis without one is named after its place."""
        names: list[str] = []
        sizes: dict[str, int] = {}
        for at, axis in enumerate(spelled):
            mine = named_letters(axis) or [f"axis{at}"]
            names.extend(mine)
            sizes |= {mine[0]: shape[at]} if len(mine) == 1 else {name: self.sizes[name] for name in mine}
        return names, sizes

    def arrange(self, array: Array, spelled: Sequence[str | Axis], roles: Sequence[str]) -> Array:
        """A tensor with one axis for each role."""
        names, sizes = self.letters(array.shape, spelled)
        order = self._order(names, roles)
        moved = array.reshape([sizes[name] for name in names]).transpose([names.index(name) for name in order])
        return moved.reshape([math.prod(sizes[name] for name in order if self.role(name) == role) for role in roles])

    def restore(self, arranged: Array, shape: Sequence[int], spelled: Sequence[str | Axis], roles: Sequence[str]) -> Array:
        """The tensor of that shape that `arrange` would make this of."""
        names, sizes = self.letters(shape, spelled)
        order = self._order(names, roles)
        back = arranged.reshape([sizes[name] for name in order]).transpose([order.index(name) for name in names])
        return np.ascontiguousarray(back.reshape(shape))

    def _order(self, names: Sequence[str], roles: Sequence[str]) -> list[str]:
        """Letters by role, then by name: the same order for every tensor of the node."""
        return [name for role in roles for name in sorted(names) if self.role(name) == role]


def named_letters(axis: str | Axis) -> list[str]:
    """The letters of an axis, in order; none where its size or order matters."""
    if isinstance(axis, str):
        return [] if axis == ANONYMOUS else [axis]
    return [name for block in axis for name in block if name != ANONYMOUS]
