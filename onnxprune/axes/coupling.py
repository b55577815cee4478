"""Graph and rules in, coupling groups and refusals out.

Every node states one equation between the axes of its tensors; unifying them over a graph leaves classes of free factors: the
**coupling groups**, each a set of positions that can only be removed from all of its constants together. What cannot be
removed is a `Refusal` with the node and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.axes.factors import LEAF, Factor, leaves
from onnxprune.axes.graph_axes import GraphAxes
from onnxprune.axes.refusals import Refusal, Why
from onnxprune.axes.rules.registry import Reason
from onnxprune.axes.zeros import check_zeros
from onnxprune.ir.control_flow import walk

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.shapes.probes import Shapes

__all__ = ["Coupling", "CouplingGroup", "Member", "Refusal", "Why", "couple"]


CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "ConvInteger", "QLinearConv"})
"""Every convolution, fused and quantised ones too."""


_FEW = 4
"""Channels that no list tells apart, at least, for which a source and what is picked from it go together."""


@dataclass(frozen=True, slots=True)
class Member:
    """One axis of one constant that a group runs along, and the node that reads the constant there."""

    value: str
    axis: int
    op: str
    position: int
    alone: bool
    """True where the group is the whole axis, position for position."""
    origin: str
    """The constant's name in the model as it was read: another where several nodes shared it, and each got a copy."""


@dataclass(frozen=True, slots=True, eq=False)
class CouplingGroup:
    """Positions that are removed from every member together.

    Attributes:
        id: the first member, as ``value:axis``, with a number behind it where several groups share that axis.
        factor: the class of factors.
        exact: whether removing positions equals zeroing them (no normalisation or statistic runs over the group).
        members: the constants.
    """

    id: str
    factor: Factor
    exact: bool
    members: tuple[Member, ...]
    kind: str
    """``channels`` of convolutions; ``heads``, and their widths, where activations meet in a product; ``residual`` where a
    normalisation runs over the group; ``mlp``: every other hidden width."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.factor.size


@dataclass(frozen=True, slots=True, repr=False)
class Coupling:
    """The groups of a graph that may be pruned, and the refusals.

    Attributes:
        groups: free coupling groups, in the order of the graph.
        refusals: constants' axes that are not free, in the order of the graph.
        axes: the factors of every value's axes.
        nodes: every node that has a rule, with its factors.
    """

    groups: tuple[CouplingGroup, ...]
    refusals: tuple[Refusal, ...]
    axes: Mapping[str, tuple[Factor, ...]]
    nodes: tuple[NodeAxes, ...]

    def __repr__(self) -> str:
        """How much may go."""
        positions = sum(group.size for group in self.groups)
        return f"{len(self.groups)} groups with {positions} positions, {len(self.refusals)} axes that stay"


def couple(
    model: Model,
    shapes: Shapes,
    *,
    protect: Sequence[str] = (),
    frozen: Mapping[str, str] | None = None,
    allow_inexact: bool = False,
    only: Collection[str] = (),
) -> Coupling:
    """The coupling groups of a normalised model.

    Args:
        model: the graph; no weight is read.
        shapes: what the probe found about it.
        protect: globs over node and tensor names whose axes stay as they are.
        frozen: ids of groups that stay as they are, each with the reason (the verifier found them wrong).
        allow_inexact: whether groups that a normalisation or statistic runs over are offered.
        only: kinds of groups that are offered; empty for all.
    """
    detached: set[str] = set()
    while True:
        graph = GraphAxes(model, shapes, detached)
        for path, step in walk(model.graph, model.opset):
            graph.state(path, step)
        graph.fix_interface()
        graph.protect(protect)
        check_zeros(graph.nodes, graph.axes, model.weights, graph.fix_because)
        stuck = _stuck(graph.nodes, allow_inexact=allow_inexact)
        if not stuck:
            return _collect(graph, frozen or {}, only, allow_inexact=allow_inexact)
        detached |= stuck


def _stuck(nodes: Sequence[NodeAxes], *, allow_inexact: bool) -> set[str]:
    """The outputs that pick positions of an axis of which next to none may go: what is picked can still go without them.

    It is so where the axis is part of the interface, and where many lists pick from one axis, each in its own way.
    """
    found = set()
    for node in nodes:
        for source, _ in node.equation.picks.values():
            below = leaves(node.letters[source]) if source in node.letters else ()
            if below and not any(leaf.size >= _FEW and not leaf.fixed and (allow_inexact or not leaf.mixed) for leaf in below):
                found.add(node.view.outputs[0])
    return found


def _collect(graph: GraphAxes, frozen: Mapping[str, str], only: Collection[str], *, allow_inexact: bool) -> Coupling:
    """The classes of leaves that run along constants."""
    members: dict[Factor, list[Member]] = {}
    ids: dict[Factor, str] = {}
    for value, (op, position) in graph.uses.items():
        for axis, factor in enumerate(graph.axes.get(value, ())):
            if (value, axis) not in graph.named:
                continue
            found = [leaf for leaf in dict.fromkeys(leaves(factor)) if leaf.size > 1]
            alone, origin = factor.root.kind == LEAF, graph.model.weights[value].origin
            for count, leaf in enumerate(found):
                members.setdefault(leaf, []).append(Member(value, axis, op, position, alone, origin))
                ids.setdefault(leaf, f"{value}:{axis}" + (f".{count}" if len(found) > 1 else ""))
    groups, refusals = [], []
    heads = {leaf for factor in graph.meeting for leaf in leaves(factor)}
    for leaf, places in members.items():
        why = _refuse(graph, leaf, places, frozen.get(ids[leaf]), allow_inexact=allow_inexact)
        kind = _kind(leaf, places, heads)
        if why is None and only and kind not in only:
            why = Why(Reason.PROTECTED, places[0].value, f"is of the kind {kind}, and only {', '.join(only)} may go")
        if why is None:
            groups.append(CouplingGroup(ids[leaf], leaf, leaf.mixed is None, tuple(places), kind))
            continue
        first = places[0]
        axes = tuple(dict.fromkeys(f"{place.origin}:{place.axis}" for place in places))
        remedy = why.remedy or why.reason.remedy
        refusals.append(Refusal(first.value, first.axis, leaf.size, why.reason, why.node, why.text, remedy, axes))
    return Coupling(tuple(groups), tuple(refusals), graph.axes, tuple(graph.nodes))


def _refuse(graph: GraphAxes, leaf: Factor, places: Collection[Member], frozen: str | None, *, allow_inexact: bool) -> Why | None:
    if isinstance(leaf.fixed, Why):
        return leaf.fixed
    if frozen is not None:
        return Why(Reason.VERIFICATION, next(iter(places)).value, frozen)
    if isinstance(leaf.mixed, Why) and not allow_inexact:
        return leaf.mixed
    if not any(graph.model.weights[place.value].is_float or place.value in graph.quantized for place in places):
        return Why(Reason.NON_FLOAT, next(iter(places)).value, "no float constant to score its positions by")
    return None


def _kind(leaf: Factor, places: Collection[Member], heads: Collection[Factor]) -> str:
    if leaf.mixed:
        return "residual"
    if leaf in heads:
        return "heads"
    return "channels" if any(place.op in CONVOLUTIONS for place in places) else "mlp"
