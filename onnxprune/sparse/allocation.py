"""The number of weights that each layer keeps: shares of a total by sizes, by weights, or by measured errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.options.registries import ALLOCATIONS
from onnxprune.options.registry import SAMPLES
from onnxprune.sparse.patterns import Unstructured

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.layers import Layer

__all__ = [
    "counts_by_curves",
    "edges",
    "erk",
    "important",
    "lamp",
    "lamp_scores",
    "magnitudes",
    "ranked",
    "shared",
    "threshold",
    "uniform",
]

WeightCounts = dict[str, int]
_GRID = 200
"""Numbers of weights of one layer that sharing by curves looks at."""
_FLOOR = 0.02
"""Share of its weights that every layer keeps."""


@ALLOCATIONS.register()
def uniform(layers: Sequence[Layer], model: Model, total: int) -> WeightCounts:
    """The same share of every layer."""
    sizes = {layer.name: layer.size for layer in layers}
    return shared(sizes, sizes, total)


@ALLOCATIONS.register()
def erk(layers: Sequence[Layer], model: Model, total: int) -> WeightCounts:
    """Shares that fall with size: (inputs + outputs + kernel sizes) / their product (Evci et al. 2020, "RigL")."""
    sums = {}
    for layer in layers:
        kernel = model.weights[layer.name].shape[2:] if layer.reader.taps > 1 else ()
        sums[layer.name] = edges(layer.array(model).shape, kernel)
    return shared(sums, {layer.name: layer.size for layer in layers}, total)


def edges(shape: Sequence[int], kernel: Sequence[int]) -> int:
    """The proportion of kept weights by ``erk``: inputs + outputs + kernel sizes, for each group.

    Args:
        shape: of the weight as patterns see it. [groups, channels, taps, outputs]
        kernel: sizes of the kernel.
    """
    groups, channels, _, outputs = shape
    return groups * (channels + outputs + sum(kernel))


@ALLOCATIONS.register()
def lamp(layers: Sequence[Layer], model: Model, total: int) -> WeightCounts:
    """By layer-adaptive magnitude: a square over the sum of those of its layer that are not smaller (Lee et al. 2021)."""

    def scores(weights: Array) -> Array:
        return lamp_scores(np.square(weights.astype(np.float64)).reshape(-1))

    return ranked({layer.name: scores(model.weights[layer.name].array()) for layer in layers}, total)


def lamp_scores(squares: Array) -> Array:
    """Each over the sum of those of its layer that are not smaller, the largest first. [n]"""
    ordered = np.sort(squares)[::-1]
    found: Array = ordered / np.maximum(np.cumsum(ordered), 1e-300)
    return found


@ALLOCATIONS.register("global")
def magnitudes(layers: Sequence[Layer], model: Model, total: int) -> WeightCounts:
    """The largest weights of all layers together."""
    return ranked(
        {layer.name: np.abs(model.weights[layer.name].array().astype(np.float64)).reshape(-1) for layer in layers}, total
    )


def important(layers: Sequence[Layer], importance: Mapping[str, Array], total: int) -> WeightCounts:
    """The weights of all layers together that some criterion finds most important."""
    return ranked({layer.name: importance[layer.name].reshape(-1) for layer in layers}, total)


def threshold(layers: Sequence[Layer], model: Model, factor: float) -> WeightCounts:
    """Count the weights larger than ``factor`` times the standard deviation of their layer (Han et al. 2015)."""
    found = {}
    for layer in layers:
        weights = model.weights[layer.name].array().astype(np.float64)
        found[layer.name] = int(np.count_nonzero(np.abs(weights) >= factor * weights.std()))
    return found


@ALLOCATIONS.register("sensitivity", needs=(SAMPLES,))
def counts_by_curves(
    layers: Sequence[Layer],
    curves: Mapping[str, Mapping[int, float]],
    total: float,
    exponent: float,
    costs: Mapping[str, float] = MappingProxyType({}),
) -> WeightCounts:
    """The counts with the least sum of measured errors, each to a power, since errors of layers do not simply add.

    Between measured counts the logarithm of the error is a straight line over the logarithm of the share that is kept. A price
    per weight is found by bisection, at which the layers, each at its best count, keep the total.

    Args:
        layers: the layers.
        curves: for each of them the error by the number of weights it keeps.
        total: how many weights all keep; with costs, what these cost together, about.
        exponent: of the errors.
        costs: of one weight of a layer that has another cost than 1, as the time that it takes.
    """
    grids, errors = [], []
    each = [costs.get(layer.name, 1.0) for layer in layers]
    for layer in layers:
        grid = np.unique(np.geomspace(max(1, layer.size * _FLOOR), layer.size, _GRID).round())
        known = np.array(sorted(curves[layer.name]), np.float64)
        values = np.array([max(curves[layer.name][int(count)], 1e-12) for count in known])
        values = np.maximum.accumulate(values[::-1])[::-1]  # more weights cannot hurt
        error = np.exp(_line(np.log(grid), np.log(known), np.log(values))) ** exponent
        error[grid >= layer.size] = 0
        grids.append(grid)
        errors.append(error)

    def at(price: float) -> list[float]:
        found = zip(grids, errors, each, strict=True)
        return [float(grid[np.argmin(error + price * cost * grid)]) for grid, error, cost in found]

    def cost_of(counts: Sequence[float]) -> float:
        return sum(count * cost for count, cost in zip(counts, each, strict=True))

    low, high = -30.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if cost_of(at(10**middle)) <= total else (middle, high)
    few, many = at(10**high), at(10**low)
    gap = cost_of(many) - cost_of(few)
    share = min(max((total - cost_of(few)) / gap, 0.0), 1.0) if gap else 0.0
    wanted = {layer.name: a + share * (b - a) for layer, a, b in zip(layers, few, many, strict=True)}
    return rounded(wanted, {layer.name: layer.size for layer in layers}, round(sum(wanted.values()) if costs else total))


def _line(x: Array, known: Array, values: Array) -> Array:
    """Linear interpolation, straight on beyond both ends."""
    found = np.interp(x, known, values)
    if len(known) > 1:
        for end, inner, beyond in ((0, 1, x < known[0]), (-1, -2, x > known[-1])):
            slope = (values[end] - values[inner]) / (known[end] - known[inner])
            found[beyond] = values[end] + slope * (x[beyond] - known[end])
    return found


def ranked(scores: Mapping[str, Array], total: int) -> WeightCounts:
    """Count for each layer the weights with the highest scores of all, and some of every layer.

    Args:
        scores: of the weights of each layer. [n]
        total: how many weights all keep.
    """
    sizes = {name: len(part) for name, part in scores.items()}
    kept = Unstructured().mask(np.concatenate([*scores.values()]), total)
    parts = np.split(kept, np.cumsum([*sizes.values()])[:-1])
    counts = {name: float(np.count_nonzero(part)) for name, part in zip(sizes, parts, strict=True)}
    floors = {name: _FLOOR * size for name, size in sizes.items()}
    above = {name: max(0.0, count - floors[name]) for name, count in counts.items()}
    unit = max(0.0, total - sum(floors.values())) / max(sum(above.values()), 1e-300)  # those above give to those below
    return rounded({name: floors[name] + unit * above[name] for name in sizes}, sizes, total)


def shared(weights: Mapping[str, float], sizes: Mapping[str, int], total: int) -> WeightCounts:
    """Counts in proportion to some weights, none above the size of its layer."""
    full: set[str] = set()
    while True:
        rest = total - sum(sizes[name] for name in full)
        unit = rest / max(sum(weight for name, weight in weights.items() if name not in full), 1e-300)
        over = {name for name, weight in weights.items() if name not in full and unit * weight > sizes[name]}
        if not over:
            break
        full |= over
    wanted = {name: float(sizes[name]) if name in full else unit * weight for name, weight in weights.items()}
    return rounded(wanted, sizes, total)


def rounded(wanted: Mapping[str, float], sizes: Mapping[str, int], total: int) -> WeightCounts:
    """Whole numbers, at least one and at most all of each layer, whose sum is the total if that is possible."""
    total = min(max(total, len(sizes)), sum(sizes.values()))
    found = {name: min(max(1, math.floor(count)), sizes[name]) for name, count in wanted.items()}
    order = sorted(found, key=lambda name: found[name] - wanted[name])
    while left := total - sum(found.values()):
        room = [name for name in order if (found[name] < sizes[name] if left > 0 else found[name] > 1)]
        step = max(1, abs(left) // len(room))
        for name in room[: abs(left)]:
            change = min(step, sizes[name] - found[name]) if left > 0 else -min(step, found[name] - 1)
            found[name] += change
    return found
