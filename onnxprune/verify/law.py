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

from onnxprune.axes.factors import Indices, take
from onnxprune.data.samples import noise_samples
from onnxprune.errors import ModelError
from onnxprune.ir.discontinuities import branch_variants, frontier
from onnxprune.ir.node import defined
from onnxprune.ir.precision import as_float32, feeds_as_float32, float_types
from onnxprune.runtime.partition import Runner, run_each, split
from onnxprune.runtime.session import first_line
from onnxprune.shapes.probes import binding_candidates, shapes_at, starved
from onnxprune.verify.expense import EXPENSIVE, activation_bytes
from onnxprune.verify.float64 import as_float64
from onnxprune.verify.inputs import reference, told

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["TOLERANCE", "Check", "Drift", "compare", "drift", "isolate", "unchanged"]

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference allowed, relative to the largest absolute output, by the coarsest floating-point type in the model.

Sums over fewer terms are added in another order; nothing else differs.
"""
_NOTHING = "no floating-point output"
_DRIFT_BATCHES = ((16, 0), (1, 0), (12, 12), (10, 10), (8, 8), (4, 4))
"""Batches, and how many samples are compared at most (0: any).

A batch may be open, and the graph made for one sample; or it takes multiples alone, and the last samples are too few.
"""
DRIFT_BYTES = 1 << 28
"""Bytes of all activations of one batch whose outputs are compared, about, 256 MiB; one sample may take more."""
FLOAT32, FLOAT64 = "float32", "float64"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of comparing two models.

    Attributes:
        ok: whether they agree.
        error: the largest difference, relative to the largest absolute value of that output; infinite if one did not run.
        text: what went wrong, in one sentence; empty if nothing did.
        runs: how many feeds were compared.
        behind: outputs that depend on a choice (``TopK``, a threshold) and were compared where the choice is made.
        notes: how the models were compared, where that was not as they are.
    """

    ok: bool
    error: float
    text: str = ""
    runs: int = 0
    behind: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """The distance of the outputs of one model from another's on the same inputs, over all floating-point outputs.

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
    pruned: Model,
    masked: Model,
    *,
    seed: int = 0,
    values: bool = True,
    kept: Callable[[str], Indices] | None = None,
    against: str = "masked",
    rounded: bool = False,
) -> Check:
    """Run both models on the same feeds and compare every output.

    Where outputs differ that depend on a choice (``TopK``, a threshold), the values that enter it decide; see `frontier`.
    Where the inputs decide which branch is taken, or how often a loop runs, every branch is compared, and a loop that runs twice.
    Where ONNX Runtime does not run the model in its floating-point types, or rounding in half precision could hide what
    differs, copies of both in float32 decide, to float32's tolerance. Where float32 finds a difference, rounding that the model
    amplifies may be all of it: copies in float64 decide, to float64's tolerance; see `onnxprune.verify.float64`.

    Args:
        pruned: the small model.
        masked: the model it must equal; same interface.
        seed: of the inputs.
        values: whether outputs must be equal; if not, only that both run and have equal shapes and types.
        kept: for a value, what the plan keeps along each of its axes.
        against: what messages call the model it must equal.
        rounded: whether constants were computed anew, and rounded to their type: then that type's tolerance decides.
    """
    for small, large in branch_variants(pruned, masked):
        way = compare(small, large, seed=seed, values=values, kept=kept, against=against, rounded=rounded)
        if not way.ok and way.runs:  # the masked model runs this way, too
            return way
    return _decide(pruned, masked, _Way(seed, values, kept, against), rounded=rounded)


def unchanged(prepared: Model, source: Model, *, seed: int = 0) -> Check:
    """Compare a model that was only prepared (rewritten, folded, decoded) with the one that it was made from, run as it is.

    It must compute the same at three sizes where sizes are open, a large one among them. Where ONNX Runtime does not run the
    source, a note says that it was not tested.
    """
    outcome = _decide(prepared, source, _Way(seed, against="original", large=True))
    if outcome.ok or outcome.runs:
        return outcome
    try:
        reference(source, [output.name for output in source.graph.output], seed)
    except ModelError as error:
        return Check(ok=True, error=0.0, notes=(f"not compared with the file itself, which does not run: {error}",))
    return outcome


@dataclass(frozen=True, slots=True)
class _Way:
    """How two models are compared; see `compare`, and `reference` for ``large``."""

    seed: int
    values: bool = True
    kept: Callable[[str], Indices] | None = None
    against: str = "masked"
    large: bool = False


def _decide(pruned: Model, masked: Model, way: _Way, *, rounded: bool = False) -> Check:
    """`compare`, on the branches that the inputs take."""
    types = float_types(masked) or {FLOAT32}
    exact, limit = TOLERANCE[FLOAT32], max(TOLERANCE[name] for name in types)
    try:
        outcome = _settle(pruned, masked, way, limit)
        why = f"rounding in {max(types, key=TOLERANCE.__getitem__)} hides differences up to {limit:g}"
        needed = not rounded and limit > exact and outcome.error > exact and outcome.runs > 0
    except ModelError as error:
        outcome, why = Check(ok=False, error=np.inf, text=str(error)), str(error)
        needed = types != {FLOAT32}
    if needed:
        try:
            settled = _settle(as_float32(pruned), as_float32(masked), way, exact)
            outcome = replace(settled, notes=(*settled.notes, f"compared as float32 copies: {why}"))
        except ModelError:
            return outcome
    if outcome.ok or rounded or not np.isfinite(outcome.error):
        return outcome
    return _in_float64(pruned, masked, outcome, way)


def _in_float64(pruned: Model, masked: Model, found: Check, way: _Way) -> Check:
    """Decide in float64 about a difference that was found in a coarser type; returns that finding if float64 cannot decide."""
    try:
        small, large = as_float64(pruned), as_float64(masked)
        limit = TOLERANCE[FLOAT32 if large.narrow else FLOAT64]
        settled = _settle(small.model, large.model, replace(way, values=True), limit)
    except ModelError:
        return found
    if not np.isfinite(settled.error):
        return found
    why = f"decided by float64 copies: outputs differ by {found.error:.0e} before"
    return replace(settled, notes=(*dict.fromkeys((*found.notes, *settled.notes)), why))


def _settle(pruned: Model, masked: Model, way: _Way, limit: float) -> Check:
    """Compare outputs; where they differ behind a choice, compare what goes into it."""
    outputs = [output.name for output in masked.graph.output]
    outcome = _compare(pruned, masked, outputs, way, limit, skip=frozenset())
    if outcome.ok or not way.values or not outcome.runs:
        return outcome
    changed = [name for name, weight in masked.weights.items() if _shape(pruned, name) != weight.shape]
    choices = frontier(masked, changed)
    behind = choices.behind.intersection(outputs)
    if not behind:
        return outcome
    if not {*defined(pruned.graph), *pruned.weights}.issuperset(choices.entering):
        return outcome  # a model that was rewritten there lacks what enters the choice: nothing excuses the difference
    watched = [*outputs, *(name for name in choices.entering if name not in outputs)]
    outcome = _compare(pruned, masked, watched, way, limit, skip=behind)
    return replace(outcome, behind=len(behind))


def _compare(pruned: Model, masked: Model, watched: Sequence[str], way: _Way, limit: float, *, skip: Collection[str]) -> Check:
    """Compare some values of both models.

    Raises:
        ModelError: the masked model does not run.
    """
    given = reference(masked, watched, way.seed, large=way.large)
    try:
        results = run_each(pruned, given.feeds, watched, threads=given.threads)
    except ModelError as error:
        return Check(ok=False, error=np.inf, text=str(error))
    # A second size that the model itself does not take says nothing about the pruned one.
    runs = zip(results, given.results, given.feeds, strict=True)
    pairs = [(got, expected, told(feed)) for got, expected, feed in runs if not isinstance(expected, Exception)]
    for got, _, sizes in pairs:
        if isinstance(got, Exception):
            text = f"the pruned model does not run on {sizes}: {first_line(got)}"
            return Check(ok=False, error=np.inf, text=text, runs=1)
    worst = 0.0
    for count, (got, expected, sizes) in enumerate(pairs, 1):
        for name, a, b in zip(watched, got, expected, strict=True):  # type: ignore[arg-type] # errors returned above
            if name in skip:
                continue
            b = take(b, way.kept(name)) if way.kept is not None and isinstance(b, np.ndarray) else b
            gap = _difference(a, b, values=way.values)
            worst = max(worst, gap)
            if gap > limit:
                text = f"{name!r} {_told_gap(a, b, gap, way.against)} on {sizes}"
                return Check(ok=False, error=worst, text=text, runs=count)
    parts = len(split(masked, watched))
    notes = given.notes if way.values else ()
    notes += (f"run in {parts} segments of the graph, one after the other",) if parts > 1 else ()
    return Check(ok=True, error=worst, runs=len(pairs), notes=notes)


def _told_gap(a: Any, b: Any, gap: float, against: str) -> str:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape != b.shape:
        return f"differs from the {against} model's: its shape is {list(a.shape)}, not {list(b.shape)},"
    return f"differs from the {against} model's by {gap:.2e} (relative)"


def _shape(model: Model, name: str) -> Shape | None:
    weight = model.weights.get(name)
    return None if weight is None else weight.shape


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


def drift(pruned: Model, original: Model, samples: Samples | None, *, seed: int = 0, count: int = 64) -> Drift:
    """Compare outputs on the first ``count`` samples or fewer, at least on one batch; on seeded noise where there are none.

    Batches are smaller, and samples fewer, where a run takes much memory.
    Where ONNX Runtime does not run the models in their floating-point types, copies in float32 are compared.

    Raises:
        OptionError: the samples do not fit the model.
        ModelError: a model does not run on them.
    """
    shapes = [sizes[0] for sizes in binding_candidates(original.inputs)]
    noises = (noise_samples(original.inputs, seed=seed, shapes=one) for one in shapes)
    failed: ModelError | None = None
    for one, given in zip(shapes, noises if samples is None else [samples], strict=False):
        try:
            cost = activation_bytes(original, {name: (1, *shape[1:]) for name, shape in one.items()})
            found = _drift_in_any(pruned, original, given, count, cost)
        except ModelError as error:
            failed = failed or error
            continue
        if found.source != _NOTHING or samples is not None or not starved(original, shapes_at(original, one).shapes):
            return found
    if failed is None:
        return found
    raise failed


def _drift_in_any(pruned: Model, original: Model, samples: Samples, count: int, cost: int) -> Drift:
    """The drift, of copies in float32 where the models do not run as they are; a sample's activations take ``cost`` bytes."""
    count = max(1, min(count, EXPENSIVE // max(cost, 1)))
    largest = max(1, min(_DRIFT_BATCHES[0][0], DRIFT_BYTES // max(cost, 1)))
    batches = [(largest, 0), *_DRIFT_BATCHES[1:]]
    try:
        return _drift_of(pruned, original, samples, count, dict, batches)
    except ModelError:
        if float_types(original) <= {FLOAT32}:
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
    taken = vectors = choices = 0
    cosines = agreements = squares = gaps = 0.0
    names, reshaped = [output.name for output in large.model.graph.output], set[str]()
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
                reshaped.add(name)
                vectors, choices, gaps, squares = vectors + 1, choices + 1, gaps + 1.0, squares + 1.0
                continue
            if b.ndim < 1 or b.size == 0:
                continue
            x, y = (v.astype(np.float64).reshape(v.shape[0] if v.ndim > 1 else 1, -1) for v in (a, b))
            norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
            same = a.argmax(-1) == b.argmax(-1)
            cosines += float(np.where(norms > 0, (x * y).sum(1) / np.maximum(norms, 1e-300), 1.0).sum())
            agreements += float(same.sum())
            vectors += len(x)
            choices += same.size
            squares += float((y**2).sum())
            gaps += float(((x - y) ** 2).sum())
    if not vectors:
        return Drift(1.0, 0.0, 1.0, taken, _NOTHING)
    relative = float(np.sqrt(gaps / squares)) if squares else 0.0
    shapes = "".join(f", {name!r} has another shape" for name in sorted(reshaped))
    return Drift(cosines / vectors, relative, agreements / choices, taken, f"{samples.source}{shapes}")


def _run(runner: Runner, feeds: Mapping[str, Any], text: str) -> list[Any]:
    try:
        return runner.run(feeds)
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise ModelError(f"{text}: {first_line(error)}") from error
