"""Inputs of the proof: sizes that a model takes, and values that say something.

An output that is constant or nowhere finite on some inputs is equal on both sides whatever the weights are. Then other values
are drawn: ids over a whole table, masks that keep everything, positive numbers. What no draw moves is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.ir.node import every_node
from onnxprune.runtime.partition import run_each
from onnxprune.runtime.session import first_line, random_feeds
from onnxprune.shapes.probes import binding_candidates, shapes_at, starved
from onnxprune.verify.expense import EXPENSIVE, SMALL_SAMPLE, activation_bytes

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["DRAWS", "Reference", "redrawn", "reference", "told"]

Results = list[list[Any] | Exception]

_LONG = 1024
"""What the largest open size comes to, about, in the large run; images become two and a half times as high and wide."""
_LARGE_BATCH = 5
DRAWS = 3
"""Ways to draw values: noise with ids 0 and 1, ids over whole tables, and positive numbers beside these."""
_POSITIVE = (1.0, 1000.0)
"""Range of positive numbers that stand alone: frequencies, rates, thresholds."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model computes from some inputs.

    Attributes:
        feeds: the inputs, one set for each size.
        results: the outputs, or the error of a size that the model does not take.
        notes: sizes that were left out.
        threads: of each run: one, or all where a run is expensive.
    """

    feeds: list[dict[str, Array]]
    results: Results
    notes: tuple[str, ...] = ()
    threads: int = 1


def told(feed: Mapping[str, Any]) -> str:
    """The sizes of some inputs, as messages spell them."""
    return ", ".join(f"{name}{list(np.shape(value))}" for name, value in feed.items())


def reference(model: Model, watched: Sequence[str], seed: int, *, large: bool = False) -> Reference:
    """Inputs of the first sizes that a model takes, and what it computes from them; with ``large`` a large size, too.

    A model whose run is expensive is run at its first sizes alone, and on all cores.

    Raises:
        ModelError: it does not run.
    """
    first = next(binding_candidates(model.inputs, batches=(1, 2)))
    alone = activation_bytes(model, first[0]) > EXPENSIVE
    threads = 0 if alone else 1
    sizes, feeds, results = _first(model, watched, seed, alone=alone)
    if large and not alone:
        for more in _larger(model.inputs, sizes[0]):
            feed = random_feeds(model.inputs, more, seed + len(feeds))
            (result,) = run_each(model, [feed], watched)
            if not isinstance(result, Exception):
                sizes, feeds, results = [*sizes, more], [*feeds, feed], [*results, result]
                break
    left_out = alone and len(first) > 1
    notes = (f"other sizes were not tested: a run on {told(feeds[0])} takes long",) if left_out else ()
    return Reference(feeds, results, notes, threads)


def _first(
    model: Model, watched: Sequence[str], seed: int, *, alone: bool
) -> tuple[list[dict[str, Shape]], list[dict[str, Array]], Results]:
    """The first sizes that a model takes, ``alone`` or with second ones, inputs of these, and what it computes from them."""
    failed, found, empty = "", None, None
    tried: list[str] = []
    for candidate in binding_candidates(model.inputs, batches=(1, 2)):
        sizes = candidate[:1] if alone else candidate
        feeds = [random_feeds(model.inputs, shapes, seed + number) for number, shapes in enumerate(sizes)]
        results = run_each(model, feeds, watched, threads=0 if alone else 1)
        if isinstance(results[0], Exception):
            failed = failed or first_line(results[0])
            tried.append(told(feeds[0]))
        elif _is_starved(model, sizes[0], results[0]):
            empty = empty or (sizes, feeds, results)
        elif found or not any(isinstance(result, Exception) for result in results):
            return found if found and isinstance(results[-1], Exception) else (sizes, feeds, results)
        else:
            found = sizes, feeds, results  # perhaps it takes another second size
    if found or empty:
        return found or empty  # type: ignore[return-value] # one of them is there
    others = f"; nor on {'; '.join(tried[1:])}" if tried[1:] else ""
    raise ModelError(f"the model does not run on {tried[0]}: {failed}{others}")


def _is_starved(model: Model, sizes: Mapping[str, Shape], results: Sequence[Any]) -> bool:
    """Tell whether outputs are empty because the inputs are shorter than a window: comparing them says nothing."""
    if not any(isinstance(array, np.ndarray) and not array.size for array in results):
        return False
    return starved(model, shapes_at(model, sizes).shapes)


def _larger(inputs: Sequence[ValueInfoProto], sizes: Mapping[str, Shape]) -> list[dict[str, Shape]]:
    """Larger sizes than those that a model takes, the largest first.

    Equal sizes stay equal, multiples stay multiples. Where nothing else is open, a batch grows if samples are small.
    """
    free = {value.name: [not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim] for value in inputs}
    ranks = [len(dims) for dims in free.values()]
    lone = max(ranks, default=0) == 1  # the only axis is no batch, but a length
    rows = [sizes[name][axis] for name, dims in free.items() for axis, is_free in enumerate(dims) if is_free and axis > 0]
    if not rows and not lone:
        one = sum(math.prod(sizes[name][1:]) for name in free)
        batched = any(dims and dims[0] for dims in free.values()) and one <= SMALL_SAMPLE
        return [_scaled(free, sizes, 1, lone=False, batch=_LARGE_BATCH)] if batched else []
    longest = max(rows, default=1)
    factors = dict.fromkeys(max(_LONG * part // (16 * longest), 2) for part in (16, 7, 3))
    return [_scaled(free, sizes, factor, lone=lone) for factor in factors]


def _scaled(
    free: Mapping[str, Sequence[bool]], sizes: Mapping[str, Shape], factor: int, *, lone: bool, batch: int = 1
) -> dict[str, Shape]:
    found = {}
    for name, dims in free.items():
        image = len(dims) >= 4
        shape = list(sizes[name])
        for axis, is_free in enumerate(dims):
            if is_free and not axis and not lone:
                shape[axis] = batch
            elif is_free:
                shape[axis] = shape[axis] * 5 // 2 if image and axis >= 2 else shape[axis] * factor
        found[name] = tuple(shape)
    return found


def redrawn(model: Model, feed: Mapping[str, Array], seed: int, draw: int) -> dict[str, Array]:
    """Other values of the same types and sizes; ``draw`` counts the ways to draw them, from 1."""
    rng = np.random.default_rng((seed, draw))
    tables = _tables(model)
    found = {}
    for name, array in feed.items():
        if array.dtype == np.bool_:
            found[name] = np.ones_like(array)
        elif array.dtype.kind in "iu":
            size = tables.get(name)
            found[name] = np.ones_like(array) if size is None else rng.integers(0, size, array.shape).astype(array.dtype)
        elif draw > 1 and array.dtype.kind == "f":
            found[name] = np.asarray(rng.uniform(*_POSITIVE, array.shape) if array.size == 1 else np.abs(array)).astype(
                array.dtype
            )
        else:
            found[name] = array
    return found


def _tables(model: Model) -> dict[str, int]:
    """The sizes of the tables that inputs are positions in."""
    found: dict[str, int] = {}
    for node in every_node(model.graph):
        if node.op_type == "Gather" and node.input[0] in model.weights:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            size = model.weights[node.input[0]].shape[axis]
            found[node.input[1]] = min(size, found.get(node.input[1], size))
    return found
