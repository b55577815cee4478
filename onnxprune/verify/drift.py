"""How far the outputs of a changed model are from the original's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data.samples import noise_samples
from onnxprune.errors import ModelError
from onnxprune.ir.precision import as_float32, feeds_as_float32, float_types
from onnxprune.runtime.memory import share
from onnxprune.runtime.partition import Runner
from onnxprune.runtime.session import first_line
from onnxprune.shapes.candidates import binding_candidates, one_sample
from onnxprune.shapes.probes import shapes_at, starved
from onnxprune.verify.divergence import cosines, finite_rows
from onnxprune.verify.expense import activation_bytes, expensive

if TYPE_CHECKING:
    from onnxprune.data.samples import Batch, Samples
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["Changed", "Drift", "measure_drift"]

_NOTHING = "no floating-point output"
_DRIFT_BATCHES = ((16, 0), (1, 0), (12, 12), (10, 10), (8, 8), (4, 4))
"""Batches, and how many samples are compared at most (0: any).

A batch may be open, and the graph made for one sample; or it takes multiples alone, and the last samples are too few.
"""

_NOISE = 16
"""Samples of noise."""
DRIFT_BYTES = 1 << 28
"""Bytes of all activations of one batch whose outputs are compared, about, 256 MiB; one sample may take more."""
_SCORED_AXES = (2, 3)
"""Axes of outputs whose last one may be classes: [samples, classes] or [samples, tokens, classes]."""
_PART = 8
"""The part of the memory which they may take."""
_TOLD = 24
"""Samples with another answer that are told."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A sample that gets another answer.

    Attributes:
        sample: its place in the source, counted from 0.
        before: the class that the original finds.
        after: the class that the changed model finds.
        label: the right one; ``None`` where that is not known.
    """

    sample: int
    before: int
    after: int
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """The distance of the outputs of one model from another's on the same inputs, over all floating-point outputs.

    Attributes:
        cosine: mean cosine similarity per sample.
        relative: root of summed squared differences over root of summed squares.
        agreement: share of samples whose largest entry of the last axis is at the same place.
        samples: how many samples.
        source: where they came from.
        classes: entries of the last axis of the first output, where each is the score of a class, as it may be with two or three
            axes; 0 elsewhere, where agreement says little.
        changed: the first samples that get another answer, where the first output is [samples, classes]; not of noise.
    """

    cosine: float
    relative: float
    agreement: float
    samples: int
    source: str
    classes: int = 0
    changed: tuple[Changed, ...] = ()

    @property
    def alike(self) -> float:
        """The share of answers that are the original's; where there are no classes, the cosine."""
        return self.agreement if self.classes else self.cosine


def measure_drift(pruned: Model, original: Model, samples: Samples | None, *, seed: int = 0, count: int = 64) -> Drift:
    """Compare outputs on the first ``count`` samples or fewer, at least on one batch; on seeded noise where there are none.

    Batches are smaller, and samples fewer, where a run takes much memory.
    Where ONNX Runtime does not run the models in their floating-point types, copies in float32 are compared.

    Raises:
        OptionError: the samples do not fit the model.
        ModelError: a model does not run on them.
    """
    failed: ModelError | None = None
    batches = set[int]()
    for one in (sizes[0] for sizes in binding_candidates(original)):
        batch = _batch(original, one)
        if samples is not None and batch in batches:
            continue  # nothing else differs
        batches.add(batch)
        given = samples or noise_samples(original.inputs, count=max(_NOISE, batch), seed=seed, shapes=one)
        try:
            cost = activation_bytes(original, one_sample(original, one))
            found = _drift_in_any(pruned, original, given, count, cost, batch)
        except ModelError as error:
            failed = failed or error
            continue
        if samples is None:
            found = replace(found, changed=())
        if found.source != _NOTHING or samples is not None or not starved(original, shapes_at(original, one).shapes):
            return found
    if failed is None:
        return found
    raise failed


def _batch(model: Model, shapes: Mapping[str, Shape]) -> int:
    """The batch that inputs of some shapes are; 1 where none is open."""
    found = [shapes[value.name][0] for value in model.inputs if isinstance(next(iter(model.sizes.axes(value)), 1), str)]
    return max(found, default=1)


def _drift_in_any(pruned: Model, original: Model, samples: Samples, count: int, cost: int, batch: int) -> Drift:
    """The drift, of copies in float32 where the models do not run as they are.

    Args:
        pruned: a changed model.
        original: what it is compared with.
        samples: of their inputs.
        count: how many are taken at most.
        cost: bytes that a sample's activations take.
        batch: one that the models may take no others beside than multiples of.
    """
    count = max(1, min(count, expensive() // max(cost, 1)))
    largest = max(1, min(_DRIFT_BATCHES[0][0], share(_PART, DRIFT_BYTES) // max(cost, 1)))
    batches = [(largest, 0), *_DRIFT_BATCHES[1:], (batch, batch)]
    try:
        return _drift_of(pruned, original, samples, count, dict, batches)
    except ModelError:
        if float_types(original) <= {"float32"}:
            raise
    found = _drift_of(as_float32(pruned), as_float32(original), samples, count, feeds_as_float32, batches)
    return replace(found, source=f"{found.source}, float32 copies")


FeedConversion = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Makes a model's inputs of those of a batch."""


def _drift_of(
    pruned: Model, original: Model, samples: Samples, count: int, feeds: FeedConversion, batches: Sequence[tuple[int, int]]
) -> Drift:
    small, large = (Runner(model, threads=0) for model in (pruned, original))
    failed: ModelError | None = None
    for size, most in batches:
        try:
            return _drift(small, large, samples, min(count, most or count), size, feeds)
        except ModelError as error:
            failed = failed or error
    raise failed or ModelError("no batch to compare")


def _drift(small: Runner, large: Runner, samples: Samples, count: int, size: int, feeds: FeedConversion) -> Drift:
    taken = vectors = choices = classes = 0
    alike = agreements = squares = gaps = 0.0
    names, remarks = [output.name for output in large.model.graph.output], dict[str, str]()
    changed: list[Changed] = []
    for batch in samples.batches(size):
        if taken and taken + batch.size > count:
            break
        taken += batch.size
        given = feeds(batch.feeds)
        expected = _run(large, given, f"{samples.source}: the model does not run on it")
        got = _run(small, given, f"{samples.source}: the pruned model does not run on it")
        for name, a, b in zip(names, got, expected, strict=True):
            if not isinstance(b, np.ndarray) or not np.issubdtype(b.dtype, np.floating):
                continue
            if a.shape != b.shape:  # nothing of it agrees
                remarks[name] = "has another shape"
                vectors, choices, gaps, squares = vectors + 1, choices + 1, gaps + 1.0, squares + 1.0
                continue
            if b.ndim < 1 or b.size == 0:
                continue
            x, y = finite_rows(a, b)
            same = a.argmax(-1) == b.argmax(-1)
            alike += float(cosines(x, y).sum())
            if np.isnan(b).any():
                remarks.setdefault(name, "is not a number in parts")
            agreements += float(same.sum())
            if not vectors and a.ndim in _SCORED_AXES and a.shape[-1] > 1:
                classes = a.shape[-1]
            if name == names[0] and classes and same.shape == (batch.size,):
                changed += _changed(a, b, batch, samples, taken - batch.size)
            vectors += len(x)
            choices += same.size
            squares += float((y**2).sum())
            gaps += float(((x - y) ** 2).sum())
    if not vectors:
        return Drift(1.0, 0.0, 1.0, taken, _NOTHING)
    relative = float(np.sqrt(gaps / squares)) if squares else 0.0
    told = "".join(f", {name!r} {remark}" for name, remark in sorted(remarks.items()))
    some = tuple(changed[:_TOLD])
    return Drift(alike / vectors, relative, agreements / choices, taken, f"{samples.source}{told}", classes, some)


def _changed(got: Array, expected: Array, batch: Batch, samples: Samples, seen: int) -> Iterator[Changed]:
    """The samples of a batch that get another answer; scores are [samples, classes], and ``seen`` samples came before."""
    before, after = expected.argmax(-1), got.argmax(-1)
    labels = batch.labels
    if labels is None or labels.size != len(before) or not np.issubdtype(labels.dtype, np.integer):
        labels = None
    for row in np.flatnonzero(before != after)[:_TOLD].tolist():
        label = None if labels is None else int(labels.reshape(-1)[row])
        yield Changed(samples.place(seen + row), int(before[row]), int(after[row]), label)


def _run(runner: Runner, feeds: Mapping[str, Any], text: str) -> list[Any]:
    try:
        return runner.run(feeds)
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise ModelError(f"{text}: {first_line(error)}") from error
