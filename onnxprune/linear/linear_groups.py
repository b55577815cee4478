"""Groups that only linear maps touch, with the sides of every strand: between which matrices an invertible one may be put."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.axes.factors import LEAF, Factor, labels, leaves
from onnxprune.linear.layers import FLOAT_CONVOLUTIONS, MATRIX_PRODUCTS
from onnxprune.linear.strands import Strand, StrandView, strands

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.equation import Axis
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.linear.batchnorm import Consumers

__all__ = ["LinearGroup", "SummedOver", "linear_groups"]

_MOST = 1024
"""Positions of a group up to which a basis is sought: it takes eigenvectors of matrices of that size."""
_MOVES = frozenset({"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
_SUMS = frozenset({"Add", "Sub", "Sum"})
_ON_THE_WAY = frozenset({"Add", "Cast", "Div", "Mul", "Where"})
"""Operators between logits and their softmax: scales, masks, casts."""
_STEPS = 6
"""Nodes between logits and their softmax, at most."""

Link = tuple[Strand, Strand, bool]
"""Two strands that are on one side, or across."""


@dataclass(frozen=True, slots=True)
class SummedOver:
    """A node that sums over a group: the strand on either side, and which of both are keys of attention, if one is.

    All logits of a query may be shifted alike: keys count without their mean.
    """

    first: Strand
    second: Strand
    keys: Strand | None


@dataclass(frozen=True, slots=True)
class LinearGroup:
    """A group that has a basis, before anything is measured.

    Attributes:
        group: the group.
        seen: its tensors as blocks along each strand.
        constants: for each strand of a constant whether it is on the second side.
        sums: the nodes that sum over the group.
    """

    group: CouplingGroup
    seen: Mapping[Strand, StrandView]
    constants: Mapping[Strand, bool]
    sums: tuple[SummedOver, ...]


def linear_groups(model: Model, coupling: Coupling) -> list[LinearGroup]:
    """The groups that nothing but linear maps, the same for all positions, touches."""
    consumers = model.consumers()
    touching: dict[Factor, list[NodeAxes]] = {group.factor: [] for group in coupling.groups}
    for node in coupling.nodes:
        for leaf in {leaf for factor in node.letters.values() for leaf in leaves(factor)} & touching.keys():
            touching[leaf].append(node)
    sought = (_linear(model, coupling, group, touching[group.factor], consumers) for group in coupling.groups)
    return [found for found in sought if found is not None]


def _linear(
    model: Model, coupling: Coupling, group: CouplingGroup, nodes: Sequence[NodeAxes], consumers: Consumers
) -> LinearGroup | None:
    """The group, if nothing but linear maps, the same for all its positions, touches it."""
    leaf = group.factor
    if not 1 < group.size <= _MOST or not group.exact:
        return None
    sides, sums = _Sides(), []
    for node in nodes:
        links = _links(node, leaf)
        if links is None or not all(sides.join(*link) for link in links):
            return None
        for one, other, across in links:
            if across:
                sums.append(SummedOver(one, other, other if _softmax_behind(node, consumers) else None))
    every = list(sides.of)
    values = {name: coupling.axes[name] for name, _ in every}
    places = {name: len(strands(factors, leaf)) for name, factors in values.items()}
    count = {name: sum(found is leaf for factor in factors for found in leaves(factor)) for name, factors in values.items()}
    constants = {strand: sides.second(strand) for strand in every if strand[0] in model.weights}
    if not sums or places != count or any(not model.weights[name].is_float or len(consumers[name]) > 1 for name, _ in constants):
        return None
    companions = _companions(values, {name for name, _ in constants}, leaf)
    seen = {(name, strand): StrandView(values[name], leaf, strand, companions) for name, strand in every}
    if not all(one.in_order for one in seen.values()):
        return None
    turned = [replace(some, first=some.second, second=some.first) if sides.second(some.first) else some for some in sums]
    return LinearGroup(group, seen, constants, tuple(turned))


class _Sides:
    """Strands in two classes: union by links that say whether both ends are on the same side."""

    def __init__(self) -> None:
        self.of: dict[Strand, tuple[Strand, bool]] = {}

    def _root(self, strand: Strand) -> tuple[Strand, bool]:
        flipped = False
        while self.of.setdefault(strand, (strand, False))[0] != strand:
            strand, flip = self.of[strand]
            flipped ^= flip
        return strand, flipped

    def join(self, one: Strand, other: Strand, across: bool) -> bool:
        """State that two strands are on one side, or ``across``; whether that can be."""
        (a, flip), (b, flop) = self._root(one), self._root(other)
        if a == b:
            return (flip ^ flop) == across
        self.of[b] = (a, flip ^ flop ^ across)
        return True

    def second(self, strand: Strand) -> bool:
        """Whether a strand is on the second side."""
        return self._root(strand)[1]


def _links(node: NodeAxes, leaf: Factor) -> list[Link] | None:
    """State which strands through a node are on one side, and which across; ``None`` if the node is not linear in them."""
    view, rule = node.view, node.rule
    inputs = _ends(node, node.equation.inputs, view.inputs, leaf)
    outputs = _ends(node, node.equation.outputs, view.outputs, leaf)
    letters = {letter for letter, _ in (*inputs, *outputs)}
    if node.inside or view.domain or letters & (rule.mix | rule.fixed | rule.sums) or rule.quantized:
        return None
    given = sum(view.has(at) for at in range(len(view.inputs)))
    links: list[Link] = []
    for place in dict.fromkeys((*inputs, *outputs)):
        ins, outs = inputs.get(place, {}), outputs.get(place, {})
        product = view.op in FLOAT_CONVOLUTIONS | MATRIX_PRODUCTS
        if product and not outs:
            if set(ins) != {0, 1} or view.inputs[0] == view.inputs[1]:
                return None
            links.append((ins[0], ins[1], True))
            continue
        linear = (
            (product and len(ins.keys() & {0, 1}) == 1)
            or (view.op in _MOVES | _MEANS and set(ins) == {0})
            or (view.op in {"Split", "Concat"} and len(ins) > 0)
            or (view.op in _SUMS and len(ins) == given)
            or (view.op == "Mul" and len(ins) == 1)
            or (view.op == "Div" and set(ins) == {0})
        )
        if not linear or not outs:
            return None
        ends = [*ins.values(), *outs.values()]
        links += [(ends[0], end, False) for end in ends[1:]]
    return links


LetterPlace = tuple[str, int]
"""A letter of a node, and the number of the place where the leaf is in it."""


def _ends(
    node: NodeAxes, tensors: Sequence[Sequence[Axis]], names: Sequence[str], leaf: Factor
) -> dict[LetterPlace, dict[int, Strand]]:
    """For each place of a leaf in a letter the strands that carry it, by the position of their tensor."""
    found: dict[LetterPlace, dict[int, Strand]] = {}
    for position, (tensor, name) in enumerate(zip(tensors, names, strict=False)):
        strand = 0
        for letter in (letter for axis in tensor for block in axis for letter in block if letter in node.letters):
            for at in range(sum(one is leaf for one in leaves(node.letters[letter]))):
                if name:
                    found.setdefault((letter, at), {})[position] = (name, strand)
                strand += 1
    return found


def _companions(values: Mapping[str, Sequence[Factor]], constants: Collection[str], leaf: Factor) -> tuple[Factor, ...]:
    """The leaves that go along with another one in every value: beside it on its axis, or, in activations, on their own."""
    common: dict[Factor, None] | None = None
    for name, factors in values.items():
        for axis, digit in strands(factors, leaf):
            found = {one: labels(factors[axis], one) for one in leaves(factors[axis]) if one is not leaf}
            beside = dict.fromkeys(one for one, other in found.items() if other[digit >= 0].min() >= 0)
            if name not in constants:
                beside |= dict.fromkeys(
                    factor.root for at, factor in enumerate(factors) if at != axis and factor.root.kind == LEAF
                )
            common = beside if common is None else {one: None for one in common if one in beside}
    return tuple(common or ())


def _softmax_behind(node: NodeAxes, consumers: Consumers) -> bool:
    """Say whether a product goes into a softmax, scaled and masked at most."""
    value = node.view.outputs[0]
    for _ in range(_STEPS):
        behind = consumers.get(value, [])
        if len(behind) != 1:
            return False
        after = behind[0][0]
        if after.op_type == "Softmax":
            return True
        if after.op_type not in _ON_THE_WAY:
            return False
        value = after.output[0]
    return False
