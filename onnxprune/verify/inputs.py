"""Inputs of the proof: sizes that a model takes, and values that say something.

An output that is constant or nowhere finite on some inputs is equal on both sides whatever the weights are. Then other values
are drawn: ids over a whole table, masks that keep everything, positive numbers. What no draw moves is named.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.ir.lookups import rows_looked_up
from onnxprune.runtime.partition import run_each
from onnxprune.runtime.session import first_line, random_feeds
from onnxprune.shapes.candidates import binding_candidates, larger
from onnxprune.shapes.probes import shapes_at, starved
from onnxprune.shapes.run_memory import demand_room
from onnxprune.verify.expense import activation_bytes, expensive

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["DRAWS", "Reference", "redrawn", "reference", "told"]

Results = list[list[Any] | Exception]

_SECOND_SIZES = 8
"""How many second sizes are tried where the first ones are right."""
_SMALL_TRIALS = 8
_FEW = 8
"""Small runs take at most this part of what an expensive one does."""
_TOLD = 3
"""Sizes that a message names."""
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

    A model whose run is expensive is run once at its first sizes, on all cores; beside that at small ones, if they are open.

    Raises:
        ModelError: it does not run.
        OptionError: the memory that is left does not do for one run.
    """
    first = next(binding_candidates(model, batches=(1, 2)))
    alone = activation_bytes(model, first[0]) > expensive()
    if alone:
        demand_room(model, shapes_at(model, first[0]).shapes, "the proof")
    threads = 0 if alone else 1
    found = _first(model, watched, seed, alone=alone)
    if large:
        others = _small(model, found.sizes[0]) if alone else ([more] for more in larger(model, found.sizes[0]))
        found = next(filter(None, (found.with_sizes(model, watched, seed, more) for more in others)), found)
    left_out = alone and len(first) > 1 and len(found.sizes) == 1
    notes = (f"other sizes were not tested: a run on {told(found.feeds[0])} takes long",) if left_out else ()
    return Reference(found.feeds, found.results, notes, threads)


@dataclass(frozen=True, slots=True)
class _Found:
    """Sizes that a model takes: inputs of these, and what it computes from them; the first one is no error."""

    sizes: list[dict[str, Shape]]
    feeds: list[dict[str, Array]]
    results: Results

    def with_sizes(self, model: Model, watched: Sequence[str], seed: int, more: Sequence[dict[str, Shape]]) -> _Found | None:
        """These sizes and others, where the model takes all of them."""
        feeds = [random_feeds(model.inputs, one, seed + number) for number, one in enumerate(more, len(self.feeds))]
        results = run_each(model, feeds, watched)
        if any(isinstance(result, Exception) for result in results):
            return None
        return _Found([*self.sizes, *more], [*self.feeds, *feeds], [*self.results, *results])


def _small(model: Model, taken: Mapping[str, Shape]) -> Iterator[list[dict[str, Shape]]]:
    """Small sizes that are cheap beside expensive ones; none where only a batch is open."""
    known = [len(keys) > 1 and any(isinstance(key, str) for key in keys[1:]) for keys in map(model.sizes.axes, model.inputs)]
    if not any(known):
        return
    plain = model.copy()
    plain.sizes = replace(model.sizes, seen={})
    for candidate in itertools.islice(binding_candidates(plain, batches=(1, 2), smaller=True), _SMALL_TRIALS):
        if candidate[0] != taken and all(activation_bytes(model, one) <= expensive() // _FEW for one in candidate):
            yield candidate


def _first(model: Model, watched: Sequence[str], seed: int, *, alone: bool) -> _Found:
    """The first sizes that a model takes, ``alone`` or with second ones."""
    failed = ""
    found: _Found | None = None
    empty: _Found | None = None
    tried: dict[str, None] = {}
    seconds = 0
    for candidate in binding_candidates(model, batches=(1, 2)):
        sizes = candidate[:1] if alone else candidate
        feeds = [random_feeds(model.inputs, shapes, seed + number) for number, shapes in enumerate(sizes)]
        if told(feeds[0]) in tried:
            continue
        results = run_each(model, feeds, watched, threads=0 if alone else 1)
        one = _Found(sizes, feeds, results)
        if isinstance(results[0], Exception):
            failed = failed or first_line(results[0])
            tried[told(feeds[0])] = None
        elif _is_starved(model, sizes[0], results[0]):
            empty = empty or one
        elif not any(isinstance(result, Exception) for result in results):
            return one
        else:
            found = found or one  # perhaps it takes another second size
            seconds += 1
            if seconds == _SECOND_SIZES:
                break
    if found or empty:
        return found or empty  # type: ignore[return-value] # one of them is there
    raise ModelError(f"the model does not run on {_few_of(list(tried))}: {failed}; {_way_out(model)}")


def _few_of(tried: Sequence[str]) -> str:
    """Sizes that were tried: the first ones, and how many more."""
    more = f" nor on {len(tried) - _TOLD} other sizes" if len(tried) > _TOLD else ""
    return ", nor on ".join(tried[:_TOLD]) + ("," + more if more else "")


def _way_out(model: Model) -> str:
    """How to give the sizes that a model takes."""
    axes = {value.name: model.sizes.axes(value) for value in model.inputs}
    texts = [
        f"--shape {name}={'x'.join('SIZE' if isinstance(key, str) else str(key) for key in keys)}"
        for name, keys in axes.items()
        if any(isinstance(key, str) for key in keys)
    ]
    if texts:
        return f"give sizes that it takes with {' '.join(texts)}, or samples of them with --calib"
    return "it does not run in ONNX Runtime: export it again"


def _is_starved(model: Model, sizes: Mapping[str, Shape], results: Sequence[Any]) -> bool:
    """Tell whether outputs are empty because the inputs are shorter than a window: comparing them says nothing."""
    if not any(isinstance(array, np.ndarray) and not array.size for array in results):
        return False
    return starved(model, shapes_at(model, sizes).shapes)


def redrawn(model: Model, feed: Mapping[str, Array], seed: int, draw: int) -> dict[str, Array]:
    """Other values of the same types and sizes; ``draw`` counts the ways to draw them, from 1."""
    rng = np.random.default_rng((seed, draw))
    rows = rows_looked_up(model)
    found = {}
    for name, array in feed.items():
        if array.dtype == np.bool_:
            found[name] = np.ones_like(array)
        elif name in rows:
            found[name] = np.asarray(rng.integers(0, rows[name], array.shape)).astype(array.dtype)
        elif array.dtype.kind in "iu":
            found[name] = np.ones_like(array)
        elif draw > 1 and array.dtype.kind == "f":
            found[name] = np.asarray(rng.uniform(*_POSITIVE, array.shape) if array.size == 1 else np.abs(array)).astype(
                array.dtype
            )
        else:
            found[name] = array
    return found
