"""The layers whose weights may be sparse, and which of them stay dense unless they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import OptionError
from onnxprune.ir.node import captured
from onnxprune.linear.layers import Reader, linear_readers
from onnxprune.sparse.selection import split_taps

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.patterns import Pattern

__all__ = ["Layer", "find_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A reader whose matrix may be sparse.

    Attributes:
        reader: the reader.
        size: how many weights it has.
        end: whether no other layer comes before it, or none after it.
    """

    reader: Reader
    size: int
    end: bool = False

    @property
    def name(self) -> str:
        """The name of the initializer."""
        return self.reader.weight

    def called(self, glob: str) -> bool:
        """Whether the node or the weight has such a name."""
        return fnmatchcase(self.reader.name, glob) or fnmatchcase(self.name, glob)

    def array(self, model: Model) -> Array:
        """Its weights as patterns see them. [groups, channels, taps, outputs]"""
        return split_taps(self.reader.matrix(model.weights[self.name].array()), self.reader.taps)

    def zeros(self, model: Model) -> int:
        """The number of its weights that are zero."""
        return self.size - int(np.count_nonzero(model.weights[self.name].array()))

    def obeys(self, model: Model, pattern: Pattern) -> bool:
        """Say whether its weights have a pattern."""
        return pattern.allows(self.array(model) != 0)


def find_layers(model: Model, coupling: Coupling, protect: Sequence[str] = ()) -> list[Layer]:
    """The layers that may be sparse: constant matrices of convolutions and products, in the order of the graph.

    Args:
        model: a normalised model.
        coupling: its groups.
        protect: globs over names of nodes and weights that stay as they are.

    Raises:
        OptionError: there is none.
    """
    readers = linear_readers(model, coupling)
    ends = _ends(model, readers)
    layers = [Layer(reader, model.weights[reader.weight].size, reader.weight in ends) for reader in readers]
    found = [layer for layer in layers if not any(layer.called(glob) for glob in protect)]
    if not found:
        why = f"all {len(layers)} layers are protected" if layers else "there is no layer with a constant weight of its own"
        raise OptionError(f"{model.name}: nothing can be sparse: {why}")
    return found


def _ends(model: Model, readers: Collection[Reader]) -> frozenset[str]:
    """The weights of layers that read no output of another layer, and of those whose output no other layer reads."""
    weights = {reader.node.index: reader.weight for reader in readers}
    nodes = model.graph.node
    after: set[str] = set()  # values that a layer comes before
    first = set()
    for index, node in enumerate(nodes):
        reads = after.intersection((*node.input, *captured(node)))
        if index in weights and not reads:
            first.add(weights[index])
        if index in weights or reads:
            after.update(node.output)
    before: set[str] = set()  # values that a layer comes after
    last = set()
    for index, node in reversed(list(enumerate(nodes))):
        leads = before.intersection(node.output)
        if index in weights and not leads:
            last.add(weights[index])
        if index in weights or leads:
            before.update((*node.input, *captured(node)))
    return frozenset(first | last)
