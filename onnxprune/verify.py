"""The law on a whole model: the pruned model computes what the masked model computes.

``pruned(x) == masked(x)``, where *masked* is the original with zeros at the removed positions of every constant. It must hold
to float tolerance on seeded inputs, at two sizes where the model has dynamic ones. A group that breaks it is found by
bisection, so that it can be left whole and named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune import runtime
from onnxprune.axes import Indices, take
from onnxprune.errors import ModelError
from onnxprune.frontier import frontier, ways
from onnxprune.shapes import bindings

if TYPE_CHECKING:
    from onnxprune.equation import Shape
    from onnxprune.model import Model
    from onnxprune.weights import Array

__all__ = ["TOLERANCE", "Check", "Drift", "compare", "drift", "isolate"]

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference allowed, relative to the largest absolute output, by the coarsest floating-point type of the outputs.

Sums over fewer terms are added in another order; nothing else differs.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of comparing two models.

    Attributes:
        ok: whether they agree.
        error: the largest difference, relative to the largest absolute value of that output; infinite if one did not run.
        text: what went wrong, in one sentence; empty if nothing did.
        runs: how many feeds were compared.
        behind: outputs that depend on a choice (``TopK``, a threshold) and were compared where the choice is made.
    """

    ok: bool
    error: float
    text: str = ""
    runs: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the outputs of one model are from another's on the same inputs, over all floating-point outputs.

    Attributes:
        cosine: mean cosine similarity per sample.
        relative: root of summed squared differences over root of summed squares.
        agreement: share of samples whose largest entry of the last axis is at the same place.
        samples: how many samples.
        source: where they came from.
    """

    cosine: float
    relative: float
    agreement: float
    samples: int
    source: str


def compare(
    pruned: Model, masked: Model, *, seed: int = 0, values: bool = True, kept: Callable[[str], Indices] | None = None
) -> Check:
    """Run both models on the same feeds and compare every output.

    Where outputs differ that hang on a choice (``TopK``, a threshold), what goes into the choices decides; see `frontier`. Where
    the inputs decide which branch is taken, or how often a loop runs, every branch is compared, and a loop that runs twice.

    Args:
        pruned: the small model.
        masked: the model it must equal; same interface.
        seed: of the inputs.
        values: whether outputs must be equal; if not, only that both run and have equal shapes and types.
        kept: for a value, what the plan keeps along each of its axes.
    """
    for small, large in ways(pruned, masked):
        way = compare(small, large, seed=seed, values=values, kept=kept)
        if not way.ok and way.runs:  # the masked model runs this way, too
            return way
    outputs = [output.name for output in masked.graph.output]
    outcome = _compare(pruned, masked, outputs, seed, values=values, skip=frozenset(), kept=kept)
    if outcome.ok or not values or not outcome.runs:
        return outcome
    changed = [name for name, weight in masked.weights.items() if _shape(pruned, name) != weight.shape]
    choices = frontier(masked, changed)
    behind = choices.behind.intersection(outputs)
    if not behind:
        return outcome
    watched = [*outputs, *(name for name in choices.entering if name not in outputs)]
    outcome = _compare(pruned, masked, watched, seed, values=True, skip=behind, kept=kept)
    return replace(outcome, behind=len(behind))


def _compare(
    pruned: Model,
    masked: Model,
    watched: Sequence[str],
    seed: int,
    *,
    values: bool,
    skip: Collection[str],
    kept: Callable[[str], Indices] | None,
) -> Check:
    try:
        small, large = (runtime.Session(model, watched) for model in (pruned, masked))
    except ModelError as error:
        return Check(ok=False, error=np.inf, text=str(error))
    worst, runs = 0.0, 0
    for number, shapes in enumerate(bindings(masked.inputs, batches=(1, 2))):
        feeds = runtime.random_feeds(masked.inputs, shapes, seed + number)
        try:
            expected = large.run(feeds)
        except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
            if number:  # the model itself does not take this size
                continue
            return Check(ok=False, error=np.inf, text=f"the model does not run on {_show(shapes)}: {runtime.first_line(error)}")
        try:
            got = small.run(feeds)
        except Exception as error:  # noqa: BLE001 - as above
            text = f"the pruned model does not run: {runtime.first_line(error)}"
            return Check(ok=False, error=np.inf, text=text, runs=runs + 1)
        runs += 1
        for name, a, b in zip(watched, got, expected, strict=True):
            if name in skip:
                continue
            b = take(b, kept(name)) if kept is not None and isinstance(b, np.ndarray) else b
            gap = _difference(a, b, values=values)
            worst = max(worst, gap)
            if gap > tolerance(b):
                text = f"{name!r} differs from the masked model's by {gap:.2e} (relative)"
                return Check(ok=False, error=worst, text=text, runs=runs)
    return Check(ok=True, error=worst, runs=runs)


def _shape(model: Model, name: str) -> Shape | None:
    weight = model.weights.get(name)
    return None if weight is None else weight.shape


def tolerance(output: Any) -> float:
    """The largest relative difference allowed for an output; none for integers."""
    return TOLERANCE.get(str(getattr(output, "dtype", "")), 0.0)


def _difference(a: Any, b: Any, *, values: bool) -> float:
    if not isinstance(b, np.ndarray):  # a sequence or a map: compare what it holds
        pairs = zip(a, b, strict=False) if isinstance(b, list) else ()
        return max((_difference(x, y, values=values) for x, y in pairs), default=0.0)
    if a.shape != b.shape or a.dtype != b.dtype:
        return float(np.inf)
    if not values or b.size == 0:
        return 0.0
    if str(b.dtype) not in TOLERANCE:
        return 0.0 if np.array_equal(a, b) else float(np.inf)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where(wide_a == wide_b, 0, np.abs(wide_a - wide_b))  # equal infinities are equal
    finite = np.isfinite(wide_b)
    if not np.isfinite(gap).all():
        return 0.0 if np.array_equal(wide_a, wide_b, equal_nan=True) else float(np.inf)
    scale = np.abs(wide_b[finite]).max(initial=0.0)
    return float(gap.max() / scale) if scale else float(gap.max())


def isolate(names: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """The smallest set found by halving whose members break what ``holds`` for the others.

    Where two halves hold by themselves but not together, all of them are returned: they break it only in company.
    """
    if holds(names):
        return []
    if len(names) == 1:
        return list(names)
    half = len(names) // 2
    found = isolate(names[:half], holds) + isolate(names[half:], holds)
    return found or list(names)


def drift(pruned: Model, original: Model, samples: Mapping[str, Array] | None, *, seed: int = 0, count: int = 64) -> Drift:
    """Compare outputs on samples: arrays by input name, first axis the sample; seeded noise where there are none."""
    small, large = (runtime.Session(model, threads=0) for model in (pruned, original))
    got: list[list[Any]] = []
    expected: list[list[Any]] = []
    taken = 0
    for feeds, size in batches(original, samples, seed, count):
        got.append(small.run(feeds))
        expected.append(large.run(feeds))
        taken += size
    cosines, squares, gaps, same = [], 0.0, 0.0, []
    for mine, theirs in zip(got, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            if not isinstance(b, np.ndarray) or not np.issubdtype(b.dtype, np.floating) or b.ndim < 1 or a.shape != b.shape:
                continue
            x, y = (v.astype(np.float64).reshape(v.shape[0] if v.ndim > 1 else 1, -1) for v in (a, b))
            norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
            cosines.append(np.where(norms > 0, (x * y).sum(1) / np.maximum(norms, 1e-300), 1.0))
            squares += float((y**2).sum())
            gaps += float(((x - y) ** 2).sum())
            same.append((a.argmax(-1) == b.argmax(-1)).reshape(-1))
    if not cosines:
        return Drift(1.0, 0.0, 1.0, taken, "no floating-point output")
    relative = float(np.sqrt(gaps / squares)) if squares else 0.0
    source = "seeded noise" if samples is None else "samples"
    return Drift(float(np.mean(np.concatenate(cosines))), relative, float(np.mean(np.concatenate(same))), taken, source)


def batches(model: Model, samples: Mapping[str, Array] | None, seed: int, count: int) -> list[tuple[dict[str, Any], int]]:
    """Feeds for a model: the samples in batches of 16 (of the model's own batch where that is static), or noise."""
    probe = bindings(model.inputs)
    dynamic = len(probe) > 1 and all(a[:1] != b[:1] for a, b in zip(probe[0].values(), probe[1].values(), strict=True))
    shapes: dict[str, Shape] = dict(probe[0])
    own = next((shape[0] for shape in shapes.values() if shape and shape[0]), 1)
    size = 16 if dynamic else own
    found = []
    if samples is None:
        if dynamic:
            shapes = {name: (size, *shape[1:]) for name, shape in shapes.items()}
        rounds = max(1, min(count, 16) // size)
        return [(runtime.random_feeds(model.inputs, shapes, seed + i), size) for i in range(rounds)]
    total = min(count, *(len(array) for array in samples.values()))
    for start in range(0, total - (0 if dynamic else size - 1), size):
        feeds = {value.name: samples[value.name][start : min(start + size, total)] for value in model.inputs}
        found.append((feeds, len(next(iter(feeds.values())))))
    return found


def _show(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())
