"""The law on a whole model: the pruned model computes what the masked model computes.

``pruned(x) == masked(x)``, where *masked* is the original with zeros at the removed positions of every constant. It must hold
to float tolerance on seeded inputs, at three sizes where the model has dynamic ones. A group that breaks it is found by
bisection, so that it can be left whole and named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.ir.discontinuities import branch_variants, frontier
from onnxprune.ir.node import defined
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.runtime.draws import draws
from onnxprune.verify.comparison import TOLERANCE, Way, compare_values
from onnxprune.verify.float64 import as_float64
from onnxprune.verify.inputs import reference
from onnxprune.verify.verdicts import Check, OutputVerdict, Verdict, best

if TYPE_CHECKING:
    from onnxprune.axes.factors import Indices
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["compare", "isolate", "unchanged"]

FLOAT32, FLOAT64 = "float32", "float64"


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
    ways = []
    for small, large in branch_variants(pruned, masked):
        way = compare(small, large, seed=seed, values=values, kept=kept, against=against, rounded=rounded)
        if not way.ok and way.runs:  # the masked model runs this way, too
            return way
        ways.append(way.outputs)
    outcome = _decide(pruned, masked, Way(seed, values, kept, against), rounded=rounded)
    return replace(outcome, outputs=best([outcome.outputs, *ways]))


def unchanged(
    prepared: Model,
    source: Model,
    *,
    seed: int = 0,
    kept: Callable[[str], Indices] | None = None,
    moving: Collection[str] | None = None,
    against: str = "original",
    rounded: bool = False,
    exact: bool = False,
) -> Check:
    """Compare a model that was made of a file (rewritten, folded, decoded, cut) with the file, run as it is.

    It must compute the same at three sizes where sizes are open, a large one among them. Only the branches that inputs take are
    compared: in the file the others may be dead. Where ONNX Runtime does not run the file, a note says that it was not tested.

    Args:
        prepared: the model that was made.
        source: the file, with zeros in its own constants where ``prepared`` was cut.
        seed: of the inputs.
        kept: for a value, what the plan keeps along each of its axes.
        moving: the weights of ``prepared`` that an output must move with to be tested; the large ones if there are none here.
        against: what messages call the file.
        rounded: whether constants were computed anew, and rounded to their type: then that type's tolerance decides.
        exact: whether weights were only stored in another way: float64 decides about any difference, however small.
    """
    way = Way(seed, kept=kept, against=against, large=True, exact=exact, moving=None if moving is None else frozenset(moving))
    outcome = _decide(prepared, source, way, rounded=rounded)
    if outcome.ok or outcome.runs:
        return outcome
    outputs = [output.name for output in source.graph.output]
    try:
        reference(source, outputs, seed)
    except ModelError as error:
        untested = tuple(OutputVerdict(name, Verdict.NOT_TESTED, "the file does not run") for name in outputs)
        note = f"not compared with the file itself, which does not run: {error}"
        return Check(ok=True, error=0.0, notes=(note,), outputs=untested)
    return outcome


def _decide(pruned: Model, masked: Model, way: Way, *, rounded: bool = False) -> Check:
    """`compare`, on the branches that the inputs take."""
    types = float_types(masked) or {FLOAT32}
    exact, limit = TOLERANCE[FLOAT32], 0.0 if way.exact else max(TOLERANCE[name] for name in types)
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
    decided = _in_float64(pruned, masked, outcome, way)
    if way.exact and decided is outcome:  # kernels may add in another order where ONNX Runtime fuses differently
        return _decide(pruned, masked, replace(way, exact=False))
    return decided


def _in_float64(pruned: Model, masked: Model, found: Check, way: Way) -> Check:
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
    verdicts = settled.outputs if large.narrow else tuple(map(_proven, settled.outputs))
    return replace(settled, notes=(*dict.fromkeys((*found.notes, *settled.notes)), why), outputs=verdicts)


def _proven(one: OutputVerdict) -> OutputVerdict:
    """The verdict on an output that is equal in float64."""
    return one if one.verdict is Verdict.NOT_TESTED or one.why else replace(one, verdict=Verdict.PROVEN)


def _settle(pruned: Model, masked: Model, way: Way, limit: float) -> Check:
    """Compare outputs; where they differ behind a choice, compare what goes into it."""
    outputs = [output.name for output in masked.graph.output]
    outcome = compare_values(pruned, masked, outputs, way, limit)
    if count := draws(masked.proto):
        outcome = replace(
            outcome, notes=(*outcome.notes, f"random numbers were the same in both models; nodes that draw: {count}")
        )
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
    outcome = compare_values(pruned, masked, watched, way, limit, skip=behind)
    verdicts = tuple(_behind(outcome.outputs, outputs, behind, choices.entering)) if outcome.ok else ()
    return replace(outcome, behind=len(behind), outputs=verdicts)


def _behind(
    found: Sequence[OutputVerdict], outputs: Sequence[str], behind: Collection[str], entering: Collection[str]
) -> Iterator[OutputVerdict]:
    """The verdicts on outputs; those behind a choice have the verdict on what enters it."""
    verdicts = {one.output: one for one in found}
    heard = any(verdicts[name].verdict is not Verdict.NOT_TESTED for name in entering)
    for name in outputs:
        if name not in behind:
            yield verdicts[name]
        elif heard:
            yield OutputVerdict(name, Verdict.TESTED, "compared where a choice is made")
        else:
            yield OutputVerdict(name, Verdict.NOT_TESTED, "what enters the choice before it says nothing")


def _shape(model: Model, name: str) -> Shape | None:
    weight = model.weights.get(name)
    return None if weight is None else weight.shape


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
