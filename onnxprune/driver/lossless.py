"""Remove what can go without loss, and prove that the model still computes what the original does."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.driver.proof import broken, kept_by
from onnxprune.driver.result import Pruned
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.ir.node import is_followed
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Align
from onnxprune.passes import Couple, Lossless, Normalize, PruneChannels, Restore
from onnxprune.passes.constants import tie
from onnxprune.passes.footprint import footprint
from onnxprune.shapes.probes import probe
from onnxprune.verify.law import compare, unchanged
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.passes.analysis import Normalized
    from onnxprune.pruning.lossless.search import Removal

__all__ = ["Exact", "remove"]


@dataclass(frozen=True, slots=True)
class Exact:
    """A model without what it does not need.

    Attributes:
        pruned: the small model. What it was cut from is the original, rewritten: every size as it was, zeros at what goes, which
            others have taken over. Its proof is against the original.
        removal: what goes.
    """

    pruned: Pruned
    removal: Removal

    def to_dict(self, plan: Plan) -> dict[str, Any]:
        """What was found, how many of that ``plan`` keeps, and the proof, as a report shows it."""
        kept = sum(int(np.isin(gone, plan.keep.get(name, gone)).sum()) for name, gone in self.removal.gone.items())
        check = None if self.pruned.check is None else dataclasses.asdict(self.pruned.check)
        return {**self.removal.counts, "kept": kept, "check": check}


def remove(original: Model, recipe: Recipe) -> Exact:
    """Remove every dead, constant and duplicated position of the exact groups; verified if the recipe asks for it.

    Groups that the proof finds wrong are left whole.

    Raises:
        ModelError: weights that are not finite.
        TargetError: nothing else is asked for, and there is nothing to remove.
        VerificationError: the model cannot be run, so that nothing can be verified.
    """
    normal = Normalize().run(original)
    frozen: dict[str, str] = {}
    while True:
        found = _attempt(original, normal, recipe, frozen)
        gone, keep = found.removal.gone, found.pruned.plan.keep
        if recipe.only_exact and not keep:
            raise TargetError(f"{original.name}: nothing can go without loss: {_nothing(gone, frozen, recipe)}")
        if not keep or not recipe.verify:
            return found
        check = _compare(original, normal.model, found.pruned, recipe.seed)
        if check.ok:
            return dataclasses.replace(found, pruned=dataclasses.replace(found.pruned, check=check))

        def holds(some: Sequence[str], names: Collection[str] = gone.keys(), frozen: Mapping[str, str] = frozen) -> bool:
            part = _attempt(original, normal, recipe, {**frozen, **dict.fromkeys(set(names) - set(some), "")})
            return _compare(original, normal.model, part.pruned, recipe.seed).ok

        frozen = {**frozen, **broken(original.name, list(gone), holds, check)}


def _nothing(gone: Mapping[str, Any], frozen: Mapping[str, str], recipe: Recipe) -> str:
    failed = f" ({len(frozen)} groups failed verification: {', '.join(frozen)})" if frozen else ""
    if not gone:
        return f"no position is dead, constant or a duplicate of another{failed}"
    count = sum(map(len, gone.values()))
    return (
        f"{count} positions are dead, constant or duplicates, but in no group enough for a block of "
        f"{recipe.align.told}; --align 1 removes them, which may be slower{failed}"
    )


def _attempt(original: Model, normal: Normalized, recipe: Recipe, frozen: Mapping[str, str]) -> Exact:
    """What can go of all groups except frozen ones; not verified."""
    couple = Couple(recipe.protect, recipe.allow_inexact, recipe.only)
    analysis = couple.run(normal, frozen)
    align = recipe.align if recipe.only_exact else Align(1)  # what is pruned further is aligned then
    found = Lossless(align).run(analysis)
    if found.removal.gone:
        analysis = couple.run(dataclasses.replace(normal, model=found.model, shapes=probe(found.model)), frozen)
    small = tie(PruneChannels().run(analysis, found.plan))
    pruned = Pruned(analysis, found.plan, Restore().run(small, original), footprint(small).params, frozen=frozen)
    return Exact(pruned, found.removal)


def _compare(original: Model, normal: Model, pruned: Pruned, seed: int) -> Check:
    """The small model against the file; branches that inputs do not take, and choices, against what was normalised, too."""
    outcome = unchanged(pruned.model, original, seed=seed, rounded=True)
    if outcome.ok and outcome.runs and not any(map(is_followed, normal.graph.node)):
        return outcome
    kept = kept_by(pruned.analysis.coupling, pruned.plan)
    again = compare(pruned.model, normal, seed=seed, kept=kept, against="original", rounded=True)
    if not outcome.runs or again.behind or (outcome.ok and not again.ok):
        return dataclasses.replace(again, notes=(*outcome.notes, *again.notes))
    return outcome
