"""Plans carried out, and models compared with the plans that they were made by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.axes.plan import Plan
from onnxprune.data.samples import Samples, SamplesLike, optional_samples, sized
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.judgement import Jury
from onnxprune.driver.kernels import checked_with_kernels
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import Judge, exact, few
from onnxprune.driver.prune import analyze, samples_of
from onnxprune.driver.result import Pruned
from onnxprune.errors import OptionError
from onnxprune.ir import files
from onnxprune.ir.history import begin, planned, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import digest_of, watched
from onnxprune.options.gates import Gates
from onnxprune.options.prune import Recipe
from onnxprune.passes import MaskChannels, MaskSource, PruneChannels, Refill, Restore
from onnxprune.verify.drift import Drift, measure_drift
from onnxprune.verify.structure import first_difference
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.base import Progress

__all__ = ["Verified", "apply", "carry_out", "check", "check_repaired", "foreign", "unpaired", "unrepaired"]


def foreign(source: ModelSource, chosen: Plan) -> str:
    """What to tell a user who applies a plan to another file than it was made for; empty if it is that file.

    It is no error: a plan for one training run fits the next, as long as every group has as many positions.
    """
    if not chosen.sha256 or not isinstance(source, str | Path) or digest_of(source) == chosen.sha256:
        return ""
    return f"{source} is not the file that the plan was made for ({chosen.file}, sha256 {chosen.sha256[:12]}...); the groups fit"


def unpaired(pruned: ModelSource, chosen: Plan) -> str:
    """What to tell a user whose pruned model was not written with the plan, as after a kill between both; empty if it was.

    It is no error: a pruned model may have been trained since.
    """
    if not chosen.pruned or not isinstance(pruned, str | Path) or digest_of(pruned) == chosen.pruned:
        return ""
    return f"{pruned} is not the file that was written with the plan (sha256 {chosen.pruned[:12]}...), or was changed since"


def unrepaired(chosen: Plan, recipe: Recipe) -> str:
    """What to tell a user who carries a plan out without the samples that it was made with; empty if it was made without."""
    if not chosen.samples or recipe.calib:
        return ""
    return f"the plan was made with samples ({chosen.samples}), and nothing was repaired: --calib DATA repairs as prune does"


def apply(
    source: ModelSource,
    chosen: Plan,
    *,
    masked: bool = False,
    verify: bool = True,
    shape: Sequence[str] = (),
    gates: Gates | None = None,
) -> Model:
    """Carry out a plan: the pruned model, or the original with zeros at the removed positions; see also `carry_out`.

    Args:
        source: the model; it is not changed.
        chosen: the plan.
        masked: keep every shape; write zeros instead of cutting.
        verify: whether to prove that the result computes what the masked original computes; without, nothing is tested.
        shape: sizes of inputs, as ``image=?x3x224x224``.
        gates: what the result must be as good as.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: a gate needs samples, and there are none.
        PlanError: the plan is for another model.
        QualityError: the result is not as good as a gate asks.
        VerificationError: the result computes something else.
    """
    return carry_out(source, chosen, Recipe(verify=verify, shape=tuple(shape)), masked=masked, gates=gates, compare=False).model


@watched()
def carry_out(
    source: ModelSource,
    chosen: Plan,
    recipe: Recipe | None = None,
    *,
    masked: bool = False,
    samples: Samples | None = None,
    gates: Gates | None = None,
    compare: bool = True,
    progress: Progress | None = None,
) -> Pruned:
    """A plan carried out, with the proof that the surgery is exact; with samples repaired as by `prune`.

    Args:
        source: the model; it is not changed.
        chosen: the plan.
        recipe: whether to verify and to repair, on which samples, sizes of inputs, and the seed; the rest is decided by the plan.
        masked: keep every shape; write zeros instead of cutting.
        samples: calibration data; the recipe's if there is none here.
        gates: what the result must be as good as.
        compare: whether to compare outputs with the original's where no gate asks for it.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: the samples do not fit, or there are some and nothing is cut; or a gate needs some.
        PlanError: the plan is for another model.
        QualityError: the result is not as good as a gate asks.
        VerificationError: the result computes something else than the masked original.
    """
    recipe = recipe or Recipe()
    original = planned(begin(Model.of(source, recipe.shape), source, _told(chosen, recipe, masked=masked)), chosen.digest)
    recipe = dataclasses.replace(recipe, allow_inexact=True)
    opened = samples or samples_of(recipe, original)
    original = sized(original, opened)
    stages = Stages(progress)
    jury = Jury.of(gates or Gates(), original, opened, recipe.preprocess)
    if masked:
        if opened or recipe.blind:
            raise OptionError("--masked with --calib: a model with zeros is not repaired; leave one out")
        made = _masked(original, chosen, recipe)
    else:
        made = Compiler(original, recipe, jury.learnt, stages).carry_out(chosen)
    with stages("agreement", "comparing outputs with the original's"):
        judged = jury.judge(made.model, compare=compare and recipe.verify, seed=recipe.seed)
    return dataclasses.replace(made, judgement=judged)


def _told(chosen: Plan, recipe: Recipe, *, masked: bool) -> str:
    """How the plan was made, with the samples that it is carried out with: as `prune` tells it."""
    if masked or not chosen.recipe:
        return recipe_text("apply", masked=masked, calib=Path(recipe.calib).name)
    told = {name: value for name, value in json.loads(chosen.recipe).items() if name not in {"calib", "preprocess", "repair"}}
    mine = json.loads(recipe_text("prune", recipe, only=("calib", "preprocess", "repair")))
    return json.dumps({**told, **mine}, separators=(",", ":"), sort_keys=True)


def _masked(original: Model, chosen: Plan, recipe: Recipe) -> Pruned:
    found = analyze(original, allow_inexact=True)
    zeroed, file = MaskChannels().run(found, chosen), MaskSource().run(original, found, chosen)
    dense = Restore().run(zeroed, original)
    result = dense if file.missing else min(file.model, dense, key=files.written_bytes)
    judge, other = Judge(original, found.model, recipe.seed), dense if result is dense else zeroed
    proof = exact(judge.prove(found, chosen, other, masked=True), original.name) if recipe.verify else None
    return Pruned(found, chosen, result, check=proof)


def check(original: ModelSource, pruned: ModelSource, chosen: Plan, *, seed: int = 0, shape: Sequence[str] = ()) -> Check:
    """Whether a pruned model computes what the masked original computes, and keeps its interface.

    A model that was repaired does not; see `check_repaired`.

    Raises:
        ModelError: one of them is not a model that can be read.
        PlanError: the plan is for another model.
    """
    file = Model.of(original, shape)
    return checked_with_kernels(pruned, _check(file, analyze(file, allow_inexact=True), Model.of(pruned), chosen, seed), seed)


def _check(file: Model, found: Analysis, small: Model, chosen: Plan, seed: int) -> Check:
    for side in ("input", "output"):
        mine, theirs = ({v.name: v.type for v in getattr(model.graph, side)} for model in (small, found.model))
        for name, kind in theirs.items():
            if mine.get(name) != kind:
                return Check(ok=False, error=float("inf"), text=f"graph {side} {name!r} is not the original's")
    return Judge(file, found.model, seed).prove(found, chosen, small)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a pruned model was found to be.

    Attributes:
        check: the proof of the model; of what its plan cuts, where the model was repaired since.
        repaired: its weights that are not those of the original, cut.
        drift: outputs against the original's, where it was repaired.
    """

    check: Check
    repaired: tuple[str, ...] = ()
    drift: Drift | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        drift = None if self.drift is None else dataclasses.asdict(self.drift)
        return {**dataclasses.asdict(self.check), "repaired": list(self.repaired), "drift": drift}


@watched()
def check_repaired(
    original: ModelSource,
    pruned: ModelSource,
    chosen: Plan,
    *,
    repaired: bool = False,
    samples: SamplesLike | None = None,
    preprocess: str = "",
    seed: int = 0,
    shape: Sequence[str] = (),
) -> Verified:
    """`check`, also for a model that was repaired: then what repair may not change must be what the plan makes, bit for bit.

    The model is cut again by the plan, and that is proven. It takes the weights of the file that repair may change: the
    result must be the file, node by node and constant by constant. How near its outputs are to the original's is measured.

    Args:
        original: the model that was pruned.
        pruned: the result.
        chosen: the plan it was pruned by.
        repaired: whether it may have been repaired; a plan that was made with samples says that itself.
        samples: on which outputs are compared; seeded noise if there are none.
        preprocess: how images among them become arrays.
        seed: of inputs.
        shape: sizes of inputs, as ``image=?x3x224x224``.

    Raises:
        ModelError: one of them is not a model that can be read.
        OptionError: the samples do not fit.
        PlanError: the plan is for another model.
    """
    file, small = Model.of(original, shape), Model.of(pruned)
    opened = optional_samples(samples or "", file.inputs, preprocess)
    file = sized(file, opened)
    found = analyze(file, allow_inexact=True)
    strict = checked_with_kernels(pruned, _check(file, found, small, chosen, seed), seed)
    if strict.ok and all(group.exact for group in found.coupling.groups if group.id in chosen.keep):
        return Verified(strict)
    why = strict.text or "no run proves what is inexact"
    cut = PruneChannels().run(found, chosen)
    again = Refill().run(cut, found, chosen, small)
    other = first_difference(Restore().run(again.model, file), small)
    if other:
        return Verified(dataclasses.replace(strict, ok=False, text=f"{why}; {other}"))
    if strict.ok and not again.repaired:
        return Verified(strict)
    if not (repaired or chosen.samples):
        text = f"{why}; only weights differ that repair may change ({few(again.repaired)}): --repaired takes that for one"
        return Verified(dataclasses.replace(strict, ok=False, text=text))
    proof = checked_with_kernels(pruned, Judge(file, found.model, seed).prove(found, chosen, Restore().run(cut, file)), seed)
    drift = measure_drift(small, file, opened, seed=seed) if proof.ok else None
    return Verified(proof, again.repaired, drift)
