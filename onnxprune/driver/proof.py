"""The law on what a command makes, and who breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxprune.axes.factors import Indices, Keeper
from onnxprune.errors import VerificationError
from onnxprune.passes import MaskChannels, PruneChannels
from onnxprune.verify.law import Check, compare, isolate, unchanged

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.plan import Plan
    from onnxprune.ir.model import Model
    from onnxprune.passes.analysis import Analysis

__all__ = ["broken", "judged", "kept_by", "prove"]


def kept_by(coupling: Coupling, plan: Plan) -> Callable[[str], Indices]:
    """What a plan keeps along the axes of any value."""
    keeper = Keeper(plan.positions(coupling))
    return lambda value: keeper(coupling.axes.get(value, ()))


def judged(prepared: Model, source: Model, seed: int = 0) -> Check:
    """The proof that preparing a model (normalising, folding, decoding) changed nothing: it computes what the source does.

    Raises:
        VerificationError: it does not; names the output and the sizes.
    """
    outcome = unchanged(prepared, source, seed=seed)
    if not outcome.ok:
        raise VerificationError(f"{source.name}: prepared, it computes something else than the file: {outcome.text}")
    return outcome


def prove(analysis: Analysis, plan: Plan, pruned: Model, seed: int) -> Check:
    """The law for the exact groups of a plan; for the others that the model runs and keeps its interface."""
    inexact = {group.id for group in analysis.coupling.groups if not group.exact} & plan.keep.keys()
    proven = plan.without(inexact)
    exact = PruneChannels().run(analysis, proven) if inexact else pruned
    masked = MaskChannels().run(analysis, proven)
    outcome = compare(exact, masked, seed=seed, kept=kept_by(analysis.coupling, proven))
    if outcome.ok and inexact:
        runs = compare(pruned, analysis.model, seed=seed, values=False)
        return dataclasses.replace(outcome, ok=runs.ok, text=runs.text)
    return outcome


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
