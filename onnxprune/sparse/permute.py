"""Channels that change places, so that N:M keeps larger weights: the same function, with no node added.

Which channel comes first is arbitrary: the constants of a coupling group can be permuted along it together, producers and
consumers alike (Pool and Yu 2021, "Channel Permutations for N:M Sparsity"). For each group an order is searched that raises what
its readers keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import index, leaves, take
from onnxprune.sparse.selection import split_taps

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.factors import Factor, Positions
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.layers import Layer
    from onnxprune.sparse.patterns import NofM

__all__ = ["arrange", "orders", "permuted"]

_IDLE = 2
"""Rounds over every place of a cell that may pass without a gain."""
_ROUNDS = 40
_CHUNK = 1 << 24
"""Numbers that are compared at once."""


def orders(model: Model, coupling: Coupling, layers: Sequence[Layer], pattern: NofM, seed: int = 0) -> dict[str, Positions]:
    """For each group in which a better order of positions is found: which of the old positions comes at each of the new ones."""
    found = {}
    rng = np.random.default_rng(seed)
    listed = _listed(coupling)
    for group in coupling.groups:
        if group.factor in listed:
            continue
        rows = [_rows(model, layer) for layer in layers if _reads(layer, coupling, group)]
        if rows and group.size > pattern.m:
            order = arrange(np.concatenate(rows, 1), pattern, rng)
            if (order != np.arange(group.size)).any():
                found[group.id] = order
    return found


def _listed(coupling: Coupling) -> set[Factor]:
    """The groups that lists name positions of: these would have to be written anew."""
    letters = (node.letters[letter] for node in coupling.nodes for letter in node.equation.picks)
    return {leaf for factor in letters for leaf in leaves(factor)}


def permuted(model: Model, coupling: Coupling, chosen: Mapping[str, Positions]) -> Model:
    """The model with the positions of groups in another order, in every constant along them."""
    orders: dict[Factor, Positions] = {group.factor: chosen[group.id] for group in coupling.groups if group.id in chosen}
    result = model.copy()
    for name, weight in model.weights.items():
        axes = coupling.axes.get(name, ())
        moved = [not orders.keys().isdisjoint(leaves(axis)) for axis in axes]
        if any(moved):
            along = tuple(index(axis, orders) if moves else None for axis, moves in zip(axes, moved, strict=True))
            result.weights[name] = weight.derived(weight.shape, partial(take, indices=along))
    return result


def arrange(scores: Array, pattern: NofM, rng: np.random.Generator) -> Positions:
    """An order of columns under which the pattern keeps more of their scores.

    Each round opens one place in every cell and works out what each of the columns taken out would be worth in each cell; then
    pairs of cells swap, those that gain most first. A column that is not needed in its own cell finds one where it is.

    Args:
        scores: not negative; of columns. [columns, rows]
        pattern: how many of each cell of columns are kept in a row.
        rng: which places open.

    Returns:
        The column that comes at each place; columns beyond the last whole cell stay. [columns]
    """
    count = len(scores) // pattern.m
    cells = np.arange(count * pattern.m).reshape(count, pattern.m)
    idle = 0
    for _ in range(_ROUNDS):
        gained = False
        for place in range(pattern.m):
            cells = rng.permuted(cells, axis=1)
            out, rest = cells[:, place], np.delete(cells, place, 1)
            bound = np.zeros((count, scores.shape[1]))
            if rest.shape[1] >= pattern.n:
                bound = -np.partition(-scores[rest], pattern.n - 1, 1)[:, pattern.n - 1]
            new = out[_swaps(_worth(scores[out], bound))]
            gained |= bool((new != out).any())
            cells[:, place] = new
        idle = 0 if gained else idle + 1
        if idle == _IDLE:
            break
    tail = np.arange(count * pattern.m, len(scores))
    return np.concatenate([np.sort(cells, 1).reshape(-1), tail])


def _worth(columns: Array, bound: Array) -> Array:
    """The gain of each column in each cell: its excess over the smallest that is kept there without it. [cells, columns]"""
    found = np.empty((len(bound), len(columns)))
    step = max(1, _CHUNK // max(columns.size, 1))
    for start in range(0, len(bound), step):
        gaps = columns[None] - bound[start : start + step, None]
        found[start : start + step] = np.maximum(gaps, 0, out=gaps).sum(2)
    return found


def _swaps(worth: Array) -> Positions:
    """For each cell the column that it takes, after swaps between pairs of cells that do better with each other's. [cells]"""
    count = len(worth)
    takes = np.arange(count)
    for _ in range(count):
        own = worth[np.arange(count), takes]
        theirs = worth[:, takes]
        gain = np.triu(theirs + theirs.T - own[:, None] - own[None, :], 1)
        floor = 1e-9 * max(float(own.sum()), 1e-300)
        best = np.argsort(-gain, axis=None, kind="stable")[: 4 * count]
        best = best[gain.reshape(-1)[best] > floor]
        if not len(best):
            break
        done = np.zeros(count, bool)
        for a, b in zip(*np.unravel_index(best, gain.shape), strict=True):
            if not done[a] and not done[b]:
                takes[[a, b]] = takes[[b, a]]
                done[[a, b]] = True
    return takes


def _reads(layer: Layer, coupling: Coupling, group: CouplingGroup) -> bool:
    """Say whether the channels of a layer are the positions of a group, one by one."""
    reader = layer.reader
    axes = [coupling.axes[reader.data][axis].root for axis in reader.feature_axes]
    return reader.groups == 1 and axes == [group.factor.root]


def _rows(model: Model, layer: Layer) -> Array:
    """The squares of a layer's weights, as shares of their sum. [channels, taps * outputs]"""
    matrix = layer.reader.matrix(model.weights[layer.name].array().astype(np.float64))
    squares = np.square(split_taps(matrix, layer.reader.taps)[0])
    found: Array = squares.reshape(len(squares), -1) / max(float(squares.sum()), 1e-300)
    return found
