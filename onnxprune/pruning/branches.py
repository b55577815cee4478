"""Branches: parts of a graph whose output is a term of a sum, as the blocks of residual networks and transformers are.

Without one, the sum is its other term. What is behind reads a value of the same shape, so that any branch may go; what that costs
must be measured (after Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks").
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.ir.node import is_sum_of_two, values_read

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model
    from onnxprune.shapes.probes import Shapes

__all__ = ["Branch", "find_branches"]


@dataclass(frozen=True, slots=True)
class Branch:
    """A term of a sum, and what computes it.

    Attributes:
        place: of the node that adds, in the graph.
        total: its output.
        rest: the other term, which has the shape of the sum.
        nodes: the places of the nodes that nothing but this term needs.
    """

    place: int
    total: str
    rest: str
    nodes: frozenset[int]

    def overlaps(self, other: Branch) -> bool:
        """Whether both cannot go: they are terms of one sum, or one computes a part of the other."""
        both = self.nodes | {self.place}
        return not both.isdisjoint(other.nodes | {other.place})


def find_branches(model: Model, shapes: Shapes, layers: Collection[int]) -> list[Branch]:
    """The branches that have a layer of their own, in the order of their sums.

    Args:
        model: normalised.
        shapes: of its values.
        layers: the places of nodes that multiply by weights.
    """
    nodes = model.graph.node
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    readers: dict[str, set[int]] = {output.name: {len(nodes)} for output in model.graph.output}
    for place, node in enumerate(nodes):
        for name in values_read(node):
            readers.setdefault(name, set()).add(place)
    found = []
    for place, node in enumerate(nodes):
        if not is_sum_of_two(node) or not shapes.shapes.get(node.output[0]):
            continue
        for term, rest in (node.input, node.input[::-1]):
            fits = rest not in model.weights and shapes.shapes.get(rest) == shapes.shapes[node.output[0]]
            if term != rest and term in makers and fits and readers[term] == {place}:
                own = _own(nodes, makers, readers, term, rest, place)
                if not own.isdisjoint(layers):
                    found.append(Branch(place, node.output[0], rest, frozenset(own)))
    return found


def _own(
    nodes: Sequence[NodeProto],
    makers: Mapping[str, int],
    readers: Mapping[str, set[int]],
    term: str,
    rest: str,
    place: int,
) -> set[int]:
    """The places of the nodes that only one term of the sum at a place needs."""
    own: set[int] = set()
    left = [-makers[term]]
    while left:  # from behind: all that read a node's outputs were looked at before it
        at = -heapq.heappop(left)
        outputs = [name for name in nodes[at].output if name]
        if at in own or rest in outputs or not all(readers.get(name, set()) <= {*own, place} for name in outputs):
            continue
        own.add(at)
        for name in values_read(nodes[at]):
            if name in makers:
                heapq.heappush(left, -makers[name])
    return own
