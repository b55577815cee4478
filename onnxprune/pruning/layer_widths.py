"""Widths that the user asks for by the names of layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from onnxprune.axes.factors import leaves
from onnxprune.errors import OptionError

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup

__all__ = ["shares_of"]


def shares_of(coupling: Coupling, layers: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The share that groups keep by the names of the layers that output them, by group id; the first name that fits counts.

    In ``y = Conv(Relu(Conv(x, w1)), w2)``, ``("w1", 0.5)`` is a share of the channels between both.

    Args:
        coupling: the groups.
        layers: globs over nodes, weights and group ids, with the share.

    Raises:
        OptionError: a glob names no layer whose outputs can be pruned.
    """
    names = {group.id: {group.id, *_makers(coupling, group)} for group in coupling.groups}
    found: dict[str, float] = {}
    for glob, share in layers:
        named = [group for group, called in names.items() if any(fnmatchcase(name, glob) for name in called)]
        if not named:
            near = difflib.get_close_matches(glob, sorted(set().union(*names.values())), 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(
                f"--layer {glob!r}: no layer of this name outputs channels that can be pruned: inspect says why{hint}"
            )
        for group in named:
            found.setdefault(group, share)
    return found


def _makers(coupling: Coupling, group: CouplingGroup) -> Iterator[str]:
    """The names of nodes that output a group by a matrix, and of these matrices."""
    matrices = {member.value: member.origin for member in group.members if len(coupling.axes[member.value]) > 1}
    for node in coupling.nodes:
        for value in matrices.keys() & set(node.view.inputs):
            made = (factor for name in node.view.outputs for factor in coupling.axes.get(name, ()))
            if group.factor in {leaf for factor in made for leaf in leaves(factor)}:
                yield from (node.view.name, value, matrices[value])
