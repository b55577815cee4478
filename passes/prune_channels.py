"""Cut a graph down to a plan, or write zeros where the plan would cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from onnx import ValueInfoProto

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.factors import Factor, Indices, Keeper, Positions, length, mask_outside, take
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.ir.control_flow import node_at
from onnxprune.ir.model import Model, pinned_sizes
from onnxprune.ir.node import every_graph, set_attribute
from onnxprune.ir.weights import Array, Weight
from onnxprune.passes.base import Pass

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.passes.analysis import Analysis

__all__ = ["MaskChannels", "PruneChannels", "removed", "zero_points"]


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Slice every constant to the plan and refresh the sizes that attributes and shape inputs spell."""

    def run(self, analysis: Analysis, plan: Plan) -> Model:
        """The smaller model; the analysed one itself where the plan removes nothing.

        Raises:
            PlanError: the plan is for another model.
        """
        model, coupling = analysis.model, analysis.coupling
        keep = plan.positions(coupling)
        if not keep:
            return model
        pruned = model.copy()
        for name, indices in kept_indices(model, coupling, keep).items():
            weight = model.weights[name]
            shape = tuple(size if kept is None else len(kept) for size, kept in zip(weight.shape, indices, strict=True))
            pruned.weights[name] = weight.derived(shape, partial(take, indices=indices))
        _refresh(pruned, coupling, keep)
        return pruned


@dataclass(frozen=True)
class MaskChannels(Pass):
    """Keep every shape and write zeros at the removed positions of every constant: what the pruned model must equal."""

    def run(self, analysis: Analysis, plan: Plan) -> Model:
        """The masked model; the analysed one itself where the plan removes nothing.

        Raises:
            PlanError: the plan is for another model.
        """
        model, coupling = analysis.model, analysis.coupling
        keep = plan.positions(coupling)
        if not keep:
            return model
        masked = model.copy()
        points = zero_points(model, coupling)
        for name, indices in kept_indices(model, coupling, keep).items():
            weight = model.weights[name]
            masked.weights[name] = weight.derived(weight.shape, partial(mask_outside, indices=indices, fill=points.get(name)))
        return masked


def zero_points(model: Model, coupling: Coupling) -> dict[str, Array]:
    """For quantised constants the integers that stand for zero, shaped to broadcast against them, where they are not all 0.

    Where a scale goes with every position that its constant may lose, as those of blocks do, zeros in the scale suffice.
    """
    found = {}
    for node in coupling.nodes:
        for position, (scale, point) in node.rule.quantized.items():
            weight = model.weights.get(node.view.inputs[point]) if node.view.has(point) else None
            spelled = node.equation.spelling[0]
            if weight is None or _covers(node, scale, position):
                continue
            value = weight.array()
            if not value.any():
                continue
            along = [axis for axis, letters in enumerate(spelled[position]) if value.size > 1 and letters == spelled[point][0]]
            shape = [-1 if axis in along else 1 for axis in range(len(spelled[position]))]
            found[node.view.inputs[position]] = value.reshape(shape)
    return found


def _covers(node: NodeAxes, scale: int, position: int) -> bool:
    """Tell whether one input of a node carries every letter of another that may lose positions."""
    inputs = node.equation.inputs
    letters = [{letter for axis in inputs[at] for block in axis for letter in block} for at in (scale, position) if at >= 0]
    return len(letters) > 1 and letters[1] - node.rule.fixed <= letters[0]


def removed(analysis: Analysis, plan: Plan) -> dict[str, Indices]:
    """For each constant that loses anything under a plan, what remains along each axis.

    Raises:
        PlanError: the plan is for another model.
    """
    keep = plan.positions(analysis.coupling)
    return kept_indices(analysis.model, analysis.coupling, keep) if keep else {}


def kept_indices(model: Model, coupling: Coupling, keep: Mapping[Factor, Positions]) -> dict[str, Indices]:
    """For each constant that loses anything, what remains along each axis."""
    kept = Keeper(keep)
    found = {name: kept(coupling.axes.get(name, ())) for name in model.weights}
    return {name: indices for name, indices in found.items() if any(positions is not None for positions in indices)}


def _refresh(model: Model, coupling: Coupling, keep: Mapping[Factor, Positions]) -> None:
    """Write the new sizes and positions wherever the graph spells them: attributes, shape inputs, lists, recorded shapes."""
    pinned = pinned_sizes(model)
    counts = {factor: len(kept) for factor, kept in keep.items()}
    for node in coupling.nodes:
        rule = node.rule
        if not (rule.attrs or rule.sizes_at or node.equation.picks):
            continue
        if all(length(factor, counts) == factor.size for factor in node.letters.values()):
            continue
        proto = node_at(model.graph, (node.index, *node.inside))
        for name, value in node.respelled(counts).items():
            set_attribute(proto, name, value)
        for position, entries in rule.sizes_at.items():
            source = proto.input[position] if position < len(proto.input) else ""
            _set_entries(model, pinned.get(source, source), entries, node, counts)
        lists = {at: model.weights[proto.input[at]].array() for _, at in node.equation.picks.values()}
        for position, listed in node.relisted(lists, keep).items():
            model.weights[proto.input[position]] = Weight(proto.input[position], None, listed)
    for value in recorded(model):
        for dim, factor in zip(value.type.tensor_type.shape.dim, coupling.axes.get(value.name, ()), strict=False):
            size = length(factor, counts)
            if dim.HasField("dim_value") and size != factor.size:
                dim.dim_value = size


def recorded(model: Model) -> Iterator[ValueInfoProto]:
    """The values whose shapes are recorded, except the inputs and outputs of the model."""
    yield from model.graph.value_info
    for body in list(every_graph(model.graph))[1:]:
        yield from (*body.input, *body.output, *body.value_info)


def _set_entries(model: Model, source: str, entries: tuple[Any, ...], node: NodeAxes, counts: Mapping[Factor, int]) -> None:
    weight = model.weights.get(source)
    if weight is None:
        return  # computed in the graph from sizes that shrink with it; the verifier has the last word
    values = weight.array().copy()
    for entry, axis in enumerate(entries):
        if axis is not None and axis != ((),):
            values.reshape(-1)[entry] = length(node.factor(axis), counts)
    model.weights[source] = Weight(source, None, values)
