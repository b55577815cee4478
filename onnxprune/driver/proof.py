"""The law on what a command makes, and who breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.axes.factors import Indices, Keeper
from onnxprune.errors import VerificationError
from onnxprune.ir.node import is_followed
from onnxprune.passes import MaskChannels, MaskSource, PruneChannels
from onnxprune.passes.prune_channels import removed
from onnxprune.verify.law import compare, isolate, unchanged
from onnxprune.verify.shaking import weights_that_count
from onnxprune.verify.verdicts import Check, best

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.plan import Plan
    from onnxprune.ir.model import Model
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.mask_source import MaskedSource

__all__ = ["Judge", "broken", "demand", "exact", "few", "held", "judged", "kept_by", "stored"]

_NAMED = 3
"""Weights that a note names."""


def kept_by(coupling: Coupling, plan: Plan) -> Callable[[str], Indices]:
    """What a plan keeps along the axes of any value."""
    keeper = Keeper(plan.positions(coupling))
    return lambda value: keeper(coupling.axes.get(value, ()))


@dataclass(frozen=True)
class Judge:
    """The file that a user gave decides what of it is right.

    Attributes:
        source: the file, as it was read.
        prepared: what was pruned: the file, normalised.
        seed: of the inputs.
    """

    source: Model
    prepared: Model
    seed: int = 0

    def prove(self, analysis: Analysis, plan: Plan, pruned: Model, *, masked: bool = False) -> Check:
        """The law for the exact groups of a plan; for the others that the model runs and keeps its interface.

        A model that has zeros where others are cut (``masked``) must equal the masked file, whatever the groups are.

        Raises:
            VerificationError: normalised, the file computes something else, whatever the plan.
        """
        if masked:
            return self._law(analysis, plan, pruned, None)
        inexact = {group.id for group in analysis.coupling.groups if not group.exact} & plan.keep.keys()
        proven = plan.without(inexact)
        exact = PruneChannels().run(analysis, proven) if inexact else pruned
        outcome = self._law(analysis, proven, exact, kept_by(analysis.coupling, proven))
        if outcome.ok and inexact:
            runs = compare(pruned, analysis.model, seed=self.seed, values=False)
            return dataclasses.replace(outcome, ok=runs.ok, text=runs.text)
        return outcome

    def _law(self, analysis: Analysis, plan: Plan, pruned: Model, kept: Callable[[str], Indices] | None) -> Check:
        """Compare a model with the masked file; where that cannot be masked, with the masked normalised model.

        In the file itself, branches that are never taken may be wrong: every branch is compared in the normalised model.
        """
        moving = frozenset(removed(analysis, plan))
        file = MaskSource().run(self.source, analysis, plan)
        branches = any(map(is_followed, self.prepared.graph.node))
        outcome = None
        if not file.missing:
            outcome = unchanged(pruned, file.model, seed=self.seed, kept=kept, moving=moving, against="masked")
            if outcome.ok and outcome.runs and not branches:
                return _noted(outcome, _computed(file.computed))
        masked = MaskChannels().run(analysis, plan)
        if outcome is None or not (outcome.ok and outcome.runs):
            _ = self.preparation
        normal = compare(pruned, masked, seed=self.seed, kept=kept)
        if outcome is None or not outcome.runs or not normal.ok:
            return _noted(normal, *(outcome.notes if outcome else ()), _missing(file.missing))
        if outcome.ok or normal.behind:  # what enters a choice may have another name in the file
            verdicts = best([outcome.outputs or normal.outputs, normal.outputs])
            return dataclasses.replace(normal, runs=max(outcome.runs, normal.runs), outputs=verdicts)
        return outcome

    def filled(self, changed: Model, file: MaskedSource, result: Model) -> Check:
        """The proof that a model with other weights is the file with the same weights in its own constants.

        Where the file has other constants there, what was prepared must equal the file, and the result what was prepared.

        Args:
            changed: what was prepared, with other weights.
            file: the file with these weights.
            result: what is written of the file, or of ``changed`` where the file lacks constants; perhaps encoded.

        Raises:
            VerificationError: it computes something else; names the output and the sizes.
        """
        if file.missing:
            note = f"compared where it was normalised, which equals the file: there nothing has the values of {few(file.missing)}"
            check, judge = _noted(self.preparation, note), changed
        else:
            check, judge = stored(changed, file.model, "with the new weights", self.seed), file.model
        if result is judge:
            return check
        written = stored(result, judge, "written", self.seed)
        return dataclasses.replace(check, outputs=best([check.outputs, written.outputs]))

    @cached_property
    def preparation(self) -> Check:
        """The proof that preparing the file changed nothing.

        Raises:
            VerificationError: it did; names the output and the sizes.
        """
        return judged(self.prepared, self.source, self.seed)


def judged(prepared: Model, source: Model, seed: int = 0) -> Check:
    """The proof that preparing a model (normalising, folding) changed nothing: it computes what the source does.

    Raises:
        VerificationError: it does not; names the output and the sizes.
    """
    return held(unchanged(prepared, source, seed=seed), source, "prepared")


def stored(result: Model, source: Model, how: str, seed: int = 0, *, exact: bool = False) -> Check:
    """The proof that weights stored in another way are what they were. Outputs must move with what they are stored in, too.

    Args:
        result: the model with such weights.
        source: the model that it must equal.
        how: what was done to the file, for messages: ``encoded``.
        seed: of the inputs.
        exact: whether nothing else was changed: any difference then counts.

    Raises:
        VerificationError: it computes something else; names the output and the sizes.
    """
    new = {name for name, weight in result.weights.items() if weight.is_float and weight.size > 1 and name not in source.weights}
    return held(unchanged(result, source, seed=seed, moving=new | weights_that_count(result), exact=exact), source, how)


def held(outcome: Check, source: Model, how: str) -> Check:
    """The proof, where it holds.

    Raises:
        VerificationError: it does not.
    """
    if not outcome.ok:
        raise VerificationError(f"{source.name}: {how}, it computes something else than the file: {outcome.text}")
    return outcome


def exact(check: Check, name: str) -> Check:
    """The proof of a plan, where it holds.

    Raises:
        VerificationError: it does not.
    """
    if not check.ok:
        raise VerificationError(f"{name}: the plan was not carried out: {check.text}; prune leaves such groups whole")
    return check


def demand(check: Check | None, name: str) -> None:
    """Every output is at least tested.

    Raises:
        VerificationError: one is not; names it, with the reason.
    """
    if check is None:
        raise VerificationError(f"{name}: --require-proof: nothing was tested: leave --no-verify out")
    if not check.outputs:
        raise VerificationError(f"{name}: --require-proof: nothing was tested")
    for one in check.untested:
        raise VerificationError(f"{name}: --require-proof: output {one.output!r} was not tested: it {one.why}")


def _noted(check: Check, *notes: str) -> Check:
    return dataclasses.replace(check, notes=tuple(dict.fromkeys((*check.notes, *filter(None, notes)))))


def _computed(names: Sequence[str]) -> str:
    return f"weights that nodes of the file make were zeroed where they are read: {few(names)}" if names else ""


def _missing(names: Sequence[str]) -> str:
    return f"masked where it was normalised, which equals the file: nothing in the file reads {few(names)} there" if names else ""


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def broken(name: str, groups: Sequence[str], holds: Callable[[Sequence[str]], bool], found: Check) -> dict[str, str]:
    """The groups of a model that break a proof, by id, each with the reason why it is left whole.

    Args:
        name: of the model.
        groups: ids of the groups that lost positions when the proof failed.
        holds: whether the proof holds where some of them alone lose positions.
        found: the failed proof.

    Raises:
        VerificationError: it does not hold where no group loses anything, either: the model cannot be verified.
    """
    if not holds([]):
        raise VerificationError(f"{name}: cannot be verified: {found.text}; --no-verify skips the proof")
    return dict.fromkeys(isolate(groups, holds), f"the verifier found: {found.text}")
