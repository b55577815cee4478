"""Cut a graph down to a plan, or write zeros where the plan would cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from onnx import NodeProto, helper

from onnxprune.axes import Factor, Positions, index, length
from onnxprune.coupling import Coupling, NodeAxes
from onnxprune.model import Array, Model, Weight
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.passes.normalize import pinned_sizes

__all__ = ["MaskChannels", "PruneChannels"]

Indices = tuple[Positions | None, ...]


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Slice every constant to the plan and refresh the sizes that attributes and shape inputs spell."""

    name: ClassVar[str] = "prune_channels"
    keeps: ClassVar[frozenset[str]] = frozenset({"plan"})

    def run(self, model: Model, facts: Facts) -> Model:
        coupling = need(facts.coupling, "coupling")
        keep = need(facts.plan, "plan").positions(coupling)
        if not keep:
            return model
        pruned = model.copy()
        for name, indices in kept_indices(model, coupling, keep).items():
            weight = model.weights[name]
            shape = tuple(size if kept is None else len(kept) for size, kept in zip(weight.shape, indices, strict=True))
            pruned.weights[name] = weight.derived(shape, partial(take, indices=indices))
        _refresh(pruned, coupling, {factor: len(kept) for factor, kept in keep.items()})
        return pruned


@dataclass(frozen=True)
class MaskChannels(Pass):
    """Keep every shape and write zeros at the removed positions of every constant: what the pruned model must equal."""

    name: ClassVar[str] = "mask_channels"
    keeps: ClassVar[frozenset[str]] = frozenset({"shapes", "coupling", "plan"})

    def run(self, model: Model, facts: Facts) -> Model:
        coupling = need(facts.coupling, "coupling")
        keep = need(facts.plan, "plan").positions(coupling)
        if not keep:
            return model
        masked = model.copy()
        for name, indices in kept_indices(model, coupling, keep).items():
            weight = model.weights[name]
            masked.weights[name] = weight.derived(weight.shape, partial(mask, indices=indices))
        return masked


def kept_indices(model: Model, coupling: Coupling, keep: Mapping[Factor, Positions]) -> dict[str, Indices]:
    """For each constant that loses anything, what remains along each axis; ``None`` for a whole axis."""
    cache: dict[Factor, Positions | None] = {}

    def kept(factor: Factor) -> Positions | None:
        root = factor.root
        if root not in cache:
            positions = index(root, keep)
            cache[root] = None if len(positions) == root.size else positions
        return cache[root]

    found = {}
    for name in model.weights:
        indices = tuple(kept(factor) for factor in coupling.axes.get(name, ()))
        if any(positions is not None for positions in indices):
            found[name] = indices
    return found


def take(array: Array, indices: Indices) -> Array:
    """The part of an array at the given indices of each axis."""
    for axis, positions in enumerate(indices):
        if positions is not None:
            array = np.take(array, positions, axis, mode="clip")  # indices are valid; unchecked is half as long again as fast
    return array


def mask(array: Array, indices: Indices) -> Array:
    """A copy of an array with zeros outside the given indices of each axis."""
    result = array.copy()
    for axis, positions in enumerate(indices):
        if positions is not None:
            removed = np.ones(array.shape[axis], bool)
            removed[positions] = False
            result[(slice(None),) * axis + (removed,)] = np.zeros((), array.dtype)
    return result


def _refresh(model: Model, coupling: Coupling, counts: Mapping[Factor, int]) -> None:
    """Write the new sizes wherever the graph spells them: attributes, shape inputs, recorded shapes."""
    pinned = pinned_sizes(model)
    for node in coupling.nodes:
        rule = node.rule
        if not (rule.attrs or rule.sizes_at):
            continue
        if all(length(factor, counts) == factor.size for factor in node.letters.values()):
            continue
        proto = model.graph.node[node.index]
        for name, spelled in rule.attrs.items():
            _set_attribute(proto, name, _respell(spelled, node, counts))
        for position, entries in rule.sizes_at.items():
            source = proto.input[position] if position < len(proto.input) else ""
            _set_entries(model, pinned.get(source, source), entries, node, counts)
    for value in model.graph.value_info:
        for dim, factor in zip(value.type.tensor_type.shape.dim, coupling.axes.get(value.name, ()), strict=False):
            size = length(factor, counts)
            if dim.HasField("dim_value") and size != factor.size:
                dim.dim_value = size


def _respell(spelled: Any, node: NodeAxes, counts: Mapping[Factor, int]) -> Any:
    if isinstance(spelled, list):
        return [_respell(item, node, counts) for item in spelled]
    return length(node.factor(spelled), counts) if isinstance(spelled, tuple) else spelled


def _set_attribute(node: NodeProto, name: str, value: Any) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            if helper.get_attribute_value(attribute) != value:
                attribute.CopyFrom(helper.make_attribute(name, value))
            return
    node.attribute.append(helper.make_attribute(name, value))


def _set_entries(model: Model, source: str, entries: tuple[Any, ...], node: NodeAxes, counts: Mapping[Factor, int]) -> None:
    weight = model.weights.get(source)
    if weight is None:
        return  # computed in the graph from sizes that shrink with it; the verifier has the last word
    values = weight.array().copy()
    for entry, axis in enumerate(entries):
        if axis is not None and axis != ((),):
            values.reshape(-1)[entry] = length(node.factor(axis), counts)
    model.weights[source] = Weight(source, None, values)
