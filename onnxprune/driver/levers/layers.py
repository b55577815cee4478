"""The layers of a graph for int8, each with the nodes behind it; and which of them are slower in int8, with their neighbours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from onnxprune.runtime.int8_operators import LINEAR

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.latency.node_times import NodeTime

__all__ = ["Layer", "layer_times", "layers_of", "predicted", "slower"]

_BORDERS = frozenset({"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput"})
"""Operators that change how values are stored, where stretches of one type begin and end."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear node and what follows it up to the next one; both compute in one type.

    Attributes:
        name: what the linear node is called: its name, or that of a weight that it reads.
        nodes: the names of all its nodes that have one of their own; of the linear node the weight's if it has none.
        values: what they output.
    """

    name: str
    nodes: tuple[str, ...]
    values: tuple[str, ...]


def layers_of(model: Model) -> list[Layer]:
    """The layers in topological order; nodes in front of the first are in none."""
    names = [node.name for node in model.graph.node]
    alone = {name for name in names if name and names.count(name) == 1} if len(set(names)) < len(names) else set(names)
    found: list[Layer] = []
    nodes: list[str] = []
    values: list[str] = []
    for node in model.graph.node:
        weights = [name for name in node.input if name in model.weights]
        name = node.name if node.name in alone else next(iter(weights), "")
        if node.op_type in LINEAR and name:
            nodes, values = [], []
            found.append(Layer(name, (), ()))
        if not found:
            continue
        nodes += [name] if name and (node.op_type in LINEAR or node.name in alone) else []
        values += [value for value in node.output if value]
        found[-1] = Layer(found[-1].name, tuple(nodes), tuple(values))
    return found


def slower(layers: Sequence[Layer], whole: Sequence[NodeTime], rounded: Sequence[NodeTime]) -> list[Layer]:
    """The layers that had better stay in floating point: the choice that takes the least time over all, borders included.

    Args:
        layers: in order.
        whole: the time of each node where all compute in floating point.
        rounded: the same in int8.

    A border lies wherever the type changes, also where the graph begins and ends: values of the layer in front are converted.
    """
    floats, ints = (_per_layer(layers, times) for times in (whole, rounded))
    written = _written(layers, whole)
    cost = _per_byte(rounded)
    # best[t]: the least time up to here if the last layer is in type t, 0 for floating point; with the types that gave it
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ()), (float("inf"), ())]
    for number in range(len(layers)):
        border = cost * written[max(number - 1, 0)]
        best = [
            min((total + (border if last != kind else 0.0) + own, (*types, kind)) for last, (total, types) in enumerate(best))
            for kind, own in enumerate((floats[number], ints[number]))
        ]
    final = cost * written[-1] if layers else 0.0
    types = min(best[0], (best[1][0] + final, best[1][1]))[1]
    return [layer for layer, kind in zip(layers, types, strict=True) if kind == 0]


def predicted(layers: Sequence[Layer], whole: Sequence[NodeTime], rounded: Sequence[NodeTime], floats: Collection[str]) -> float:
    """The time where some layers, by name, compute in floating point and the others in int8, over that where all are floats."""
    in_floats, in_ints = (_per_layer(layers, times) for times in (whole, rounded))
    written, cost = _written(layers, whole), _per_byte(rounded)
    total, last = 0.0, True
    for number, layer in enumerate(layers):
        is_float = layer.name in floats
        total += in_floats[number] if is_float else in_ints[number]
        total += cost * written[max(number - 1, 0)] if is_float != last else 0.0
        last = is_float
    total += 0.0 if last or not layers else cost * written[-1]
    return total / max(sum(in_floats), 1e-30)


def layer_times(layers: Sequence[Layer], times: Sequence[NodeTime]) -> dict[str, float]:
    """The milliseconds of each layer, by its name."""
    return {layer.name: time for layer, time in zip(layers, _per_layer(layers, times), strict=True)}


def _per_layer(layers: Sequence[Layer], times: Sequence[NodeTime]) -> list[float]:
    """The milliseconds of each layer, without conversions at borders."""
    owners = _owners(layers)
    found = [0.0] * len(layers)
    at = 0
    for one in times:
        at = _owner(one.name, owners, at)
        if one.op not in _BORDERS and layers:
            found[at] += one.milliseconds
    return found


def _written(layers: Sequence[Layer], times: Sequence[NodeTime]) -> list[int]:
    """The bytes that the last node of each layer writes."""
    owners = _owners(layers)
    found = [0] * len(layers)
    at = 0
    for one in times:
        at = _owner(one.name, owners, at)
        if one.op not in _BORDERS and layers:
            found[at] = one.output_bytes
    return found


def _per_byte(times: Sequence[NodeTime]) -> float:
    """What a conversion takes, in milliseconds for each byte in floating point."""
    floats = {"QuantizeLinear": 4, "DequantizeLinear": 1}  # bytes that are counted are those of the result
    rates = [one.milliseconds / (floats[one.op] * one.output_bytes) for one in times if one.op in floats and one.output_bytes]
    return median(rates) if rates else 0.0


def _owners(layers: Sequence[Layer]) -> dict[str, int]:
    return {name: number for number, layer in enumerate(layers) for name in (*layer.nodes, *layer.values)}


def _owner(name: str, owners: Mapping[str, int], default: int) -> int:
    """The layer that a node of ONNX Runtime is of: its name is that of a node or value, with something behind it."""
    while name not in owners and "_" in name:
        name = name.rpartition("_")[0]
    return owners.get(name, default)
