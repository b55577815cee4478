"""Remove what can go without loss, and prove that the model still computes what the original does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.axes.factors import Keeper
from onnxprune.axes.plan import Plan
from onnxprune.errors import TargetError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe, Target, parse_align
from onnxprune.passes import Couple, Facts, Lossless, Normalize, Pipeline, PruneChannels
from onnxprune.passes.base import need
from onnxprune.pruning.cost import METRICS, Cost, CostModel
from onnxprune.verify import law

__all__ = ["Exact", "remove"]


@dataclass(frozen=True, slots=True)
class Exact:
    """A model without what it does not need.

    Attributes:
        model: the original, rewritten: every size as it was, zeros at what goes, which others have taken over.
        facts: of the rewritten model: what goes, and the plan that removes it.
        pruned: the small model.
        before: what the original costs.
        check: the small model against the original; ``None`` where it was not verified.
    """

    model: Model
    facts: Facts
    pruned: Model
    before: Cost
    check: law.Check | None = None

    def against(self, after: Cost, obtained: Mapping[str, float]) -> dict[str, float]:
        """The fraction of each metric of the original that remains."""
        return {**obtained, **{metric: getattr(after, metric) / max(getattr(self.before, metric), 1) for metric in METRICS}}

    def remaining(self, recipe: Recipe) -> Recipe:
        """The recipe, with its target as a fraction of the rewritten model, which has more biases than the original."""
        target = Target.parse(recipe.target)
        if target.metric not in METRICS:
            return recipe
        whole = _cost(self.model, self.facts)
        ratio = min(getattr(self.before, target.metric) / max(getattr(whole, target.metric), 1), 1.0)
        return dataclasses.replace(recipe, target=f"{target.metric}={target.fraction * ratio!r}")

    def to_dict(self, plan: Plan) -> dict[str, Any]:
        """What was found, how many of that ``plan`` keeps, and the proof, as a report shows it."""
        removal = need(self.facts.removal, "removal")
        kept = sum(int(np.isin(gone, plan.keep.get(name, gone)).sum()) for name, gone in removal.gone.items())
        check = None if self.check is None else dataclasses.asdict(self.check)
        return {**removal.counts, "kept": kept, "check": check}


def remove(original: Model, recipe: Recipe) -> Exact:
    """Remove every dead, constant and duplicated position of the exact groups; verified if the recipe asks for it.

    Groups that the proof finds wrong are left whole.

    Raises:
        ModelError: weights that are not finite.
        TargetError: nothing else is asked for, and there is nothing to remove.
        VerificationError: the model cannot be run, so that nothing can be verified.
    """
    frozen: dict[str, str] = {}
    while True:
        found = _attempt(original, recipe, frozen)
        gone, keep = need(found.facts.removal, "removal").gone, need(found.facts.plan, "plan").keep
        if recipe.only_exact and not keep:
            raise TargetError(f"{original.name}: nothing can go without loss: {_nothing(gone, frozen, recipe)}")
        if not keep or not recipe.verify:
            return found
        outcome = _compare(original, found, recipe.seed)
        if outcome.ok:
            return dataclasses.replace(found, check=outcome)
        names = list(gone)

        def holds(some: Sequence[str], names: Sequence[str] = names, frozen: Mapping[str, str] = frozen) -> bool:
            part = _attempt(original, recipe, {**frozen, **dict.fromkeys(set(names) - set(some), "")})
            return _compare(original, part, recipe.seed).ok

        if not holds([]):
            raise VerificationError(f"{original.name}: cannot be verified: {outcome.text}; --no-verify skips the proof")
        wrong = law.isolate(names, holds)
        frozen |= dict.fromkeys(wrong, f"the verifier found: {outcome.text}")


def _nothing(gone: Mapping[str, Any], frozen: Mapping[str, str], recipe: Recipe) -> str:
    failed = f" ({len(frozen)} groups failed verification: {', '.join(frozen)})" if frozen else ""
    if not gone:
        return f"no position is dead, constant or a duplicate of another{failed}"
    count = sum(map(len, gone.values()))
    return (
        f"{count} positions are dead, constant or duplicates, but in no group enough for a block of "
        f"{parse_align(recipe.align)}; --align 1 removes them, which may be slower{failed}"
    )


def _attempt(original: Model, recipe: Recipe, frozen: Mapping[str, str]) -> Exact:
    couple = Couple(recipe.protect, recipe.allow_inexact, recipe.only)
    model, facts = Pipeline([Normalize(), couple]).run(original, Facts(frozen=dict(frozen)))
    before = _cost(model, facts)
    align = recipe.align if recipe.only_exact else "1"  # what is pruned further is aligned then
    model, facts = Pipeline([Lossless(align), couple]).run(model, facts)
    pruned = PruneChannels()(model, dataclasses.replace(facts))
    return Exact(model, facts, pruned, before)


def _cost(model: Model, facts: Facts) -> Cost:
    return CostModel(model, need(facts.coupling, "coupling"), need(facts.shapes, "shapes").batch).cost({})


def _compare(original: Model, found: Exact, seed: int) -> law.Check:
    """The small model against the original; where that is normalised under other names, choices are compared against it so."""
    coupling = need(found.facts.coupling, "coupling")
    keeper = Keeper(need(found.facts.plan, "plan").positions(coupling))
    outcome = law.compare(found.pruned, original, seed=seed, against="original", rounded=True)
    if outcome.ok:
        return outcome
    model = Normalize()(original, Facts())
    again = law.compare(
        found.pruned,
        model,
        seed=seed,
        kept=lambda value: keeper(coupling.axes.get(value, ())),
        against="original",
        rounded=True,
    )
    return again if again.behind else outcome
