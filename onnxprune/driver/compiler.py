"""One model and one recipe, compiled to as many targets as are asked for: what does not depend on the target is done once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.factors import Indices, Keeper
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration, Feeds
from onnxprune.data.samples import Samples, noise
from onnxprune.errors import ModelError, OptionError, TargetError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.precision import as_float32, carry, differing, float_types
from onnxprune.ir.weights import FLOATS
from onnxprune.options.prune import Recipe, parse_align
from onnxprune.passes import (
    Allocate,
    Couple,
    Facts,
    MaskChannels,
    Normalize,
    Pipeline,
    PruneChannels,
    Repair,
    Rotate,
    Score,
    Sensitivity,
    turned,
)
from onnxprune.passes.base import need
from onnxprune.pruning.allocation import widths
from onnxprune.pruning.cost import CostModel
from onnxprune.pruning.knapsack import Curve, Prices
from onnxprune.pruning.lossless.search import Removal
from onnxprune.runtime import session
from onnxprune.verify import law as verify
from onnxprune.verify.divergence import divergence

__all__ = ["Built", "Compiler", "Progress", "Stages", "kept_by", "law"]

Progress = Callable[[str], None]
"""Told what begins."""


EXPONENTS = (1.0, 1.5)
"""Of predicted errors, before they are added."""
_NOISE = 128
"""Samples of noise that stand in for data."""
_TRIALS = 5e11
"""Multiply-accumulates of the calibration set up to which several plans are repaired and compared."""


class Stages:
    """Times stages and announces them."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.tell: Progress = progress or (lambda _: None)

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        self.tell(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Built:
    """Attributes:
    model: the normalised original.
    facts: what is known about it, the plan among it.
    pruned: the small model.
    check: the proof of the surgery, before any repair; ``None`` if it was not asked for.
    """

    model: Model
    facts: Facts
    pruned: Model
    check: verify.Check | None

    @property
    def plan(self) -> Plan:
        """What remains."""
        return need(self.facts.plan, "plan")


class Compiler:
    """The passes up to the choice of widths, run once; then the rest, for each target."""

    def __init__(
        self,
        original: Model,
        recipe: Recipe,
        samples: Samples | None = None,
        stage: Stages | None = None,
        removal: Removal | None = None,
    ) -> None:
        """Nothing runs yet; ``removal`` says which positions carry no weight."""
        self.original, self.recipe, self.samples = original, recipe.settled(data=samples is not None), samples
        self.stage = stage or Stages()
        self._model: Model | None = None
        self._facts = Facts(tell=self.stage.tell, removal=removal)
        self._exponent: float | None = None

    def build(self, target: str | None = None) -> Built:
        """A small model that meets a target, that of the recipe if none is given; surgery proven, readers repaired.

        Groups that break the law are left whole, and stay so for every later target.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: the target cannot be reached; says what is reachable.
            VerificationError: the model cannot be run, so that nothing can be verified.
        """
        target = target or self.recipe.target
        while True:
            model, facts = self.planned(target)
            with self.stage("surgery", "cutting"):
                pruned = PruneChannels()(model, dataclasses.replace(facts))
            if not self.recipe.verify:
                check = None
                break
            with self.stage("verification", "verifying: pruned == masked"):
                check = law(model, facts, pruned, self.recipe.seed)
                if check.ok:
                    break
                self._freeze(model, facts, check)
        if self.recipe.repair and (self.samples is not None or self.recipe.blind):
            with self.stage("repair", "repairing"):
                pruned = self._repaired(pruned, facts) if self.samples is not None else self._blindly(pruned, facts)
        return Built(model, facts, pruned, check)

    def _blindly(self, pruned: Model, facts: Facts) -> Model:
        """The pruned model repaired on noise, if that brings it nearer to the original on other noise.

        What a reader needs is how its inputs go together, and most of that is in the weights before it: noise shows it.
        """
        shapes = need(facts.shapes, "shapes")
        inputs = self.original.inputs
        for value in inputs:
            if value.type.tensor_type.elem_type not in FLOATS:
                raise OptionError(
                    f"--calib noise: cannot stand in for input {value.name!r}, which is no floating-point data: give samples"
                )
        known = {value.name: shape for value in inputs if (shape := shapes.shapes[value.name]) is not None}
        drawn = (noise(inputs, count=_NOISE, seed=self.recipe.seed + n * _NOISE, shapes=known, natural=True) for n in (0, 1))
        float32 = facts.original is not self._model
        facts.calibration, judging = (Calibration.of(samples, shapes, float32=float32) for samples in drawn)
        repaired = self._repaired(pruned, facts)
        before, after = (drifted(model, need(facts.original, "original"), judging.held) for model in (pruned, repaired))
        if not after < before:
            facts.repairs = None
            return pruned
        return repaired

    def _repaired(self, pruned: Model, facts: Facts) -> Model:
        """The pruned model with its readers re-solved, in float32, and written in the types they had."""
        original = need(facts.original, "original")
        basis, within = turned(original, facts)
        cut = PruneChannels().run(basis, within)
        fitted = Repair(self.recipe.seed).run(cut, within)
        facts.repairs = within.repairs
        moved = differing(basis, original) | differing(fitted, cut)
        return carry(pruned, fitted, moved)

    def planned(self, target: str) -> tuple[Model, Facts]:
        """The normalised model, and facts with a plan for a target.

        Raises:
            ModelError: the weights are not finite floats.
            TargetError: the target cannot be reached; says what is reachable.
        """
        recipe = self.recipe
        model = self._prepared(target)
        facts = dataclasses.replace(self._facts)
        try:
            with self.stage("analysis", "allocating"):
                exponent = self._exponent_for(model, facts, target)
                Pipeline([Allocate(target, recipe.scope, recipe.align, exponent)]).run(model, facts)
        except TargetError as error:
            if not facts.frozen:
                raise
            failed = f"{len(facts.frozen)} groups failed verification: {', '.join(facts.frozen)}"
            raise TargetError(f"{error} ({failed})") from error
        return model, facts

    def curves(self) -> tuple[Coupling, Mapping[str, Curve]]:
        """The groups, and what each is measured to cost."""
        self._prepared(self.recipe.target)
        return need(self._facts.coupling, "coupling"), need(self._facts.curves, "curves")

    def _exponent_for(self, model: Model, facts: Facts, target: str) -> float:
        """The exponent of predicted errors whose repaired model is nearest to the original on samples its repair did not see.

        What groups lose together is not the sum of what each loses alone. How far it is from it differs from model to model, so
        two ways to add are tried, once, at the first target; where the model is too large to try, the more even one is taken.
        """
        if self._exponent is None and facts.curves and self.recipe.scope == "sensitivity":
            costs = CostModel(model, need(facts.coupling, "coupling"), need(facts.shapes, "shapes").batch)
            calibration = need(facts.calibration, "calibration")
            work = costs.cost({}).macs * len(calibration.every) * calibration.size
            small = work <= _TRIALS and self.recipe.repair
            self._exponent = self._tried(need(facts.original, "original"), facts, target) if small else EXPONENTS[-1]
        return self._exponent or 1.0

    def _tried(self, model: Model, facts: Facts, target: str) -> float:
        """The best exponent."""
        recipe, calibration = self.recipe, need(facts.calibration, "calibration")
        fitting = dataclasses.replace(calibration, every=calibration.fit)
        errors: dict[float, float] = {}
        for count, exponent in enumerate(EXPONENTS):
            self.stage.tell(f"trying ways to share the target out ({count + 1} of {len(EXPONENTS)})")
            trial = dataclasses.replace(facts, calibration=fitting, tell=lambda _: None)
            Allocate(target, recipe.scope, recipe.align, exponent)(model, trial)
            basis, within = turned(model, trial)
            pruned = Repair(recipe.seed).run(PruneChannels().run(basis, within), within)
            errors[exponent] = drifted(pruned, model, calibration.held)
        return min(errors, key=lambda exponent: errors[exponent])

    def _prepared(self, target: str) -> Model:
        """The normalised model; its groups, their scores and curves are then among the facts."""
        recipe, facts = self.recipe, self._facts
        if self._model is None:
            with self.stage("analysis", "finding coupling groups"):
                _check_weights(self.original)
                self._model, _ = Pipeline([Normalize()]).run(self.original, facts)
                wide = not float_types(self._model) <= {"float32"}
                facts.original = as_float32(self._model) if wide else self._model
        if facts.coupling is None:
            with self.stage("analysis", "finding coupling groups"):
                Pipeline([Couple(recipe.protect, recipe.allow_inexact, recipe.only)]).run(self._model, facts)
                if self.samples is not None and facts.calibration is None:
                    float32 = facts.original is not self._model
                    facts.calibration = Calibration.of(self.samples, need(facts.shapes, "shapes"), float32=float32)
        if facts.scores is None:
            with self.stage("scoring", f"scoring by {recipe.criterion}"):
                Pipeline([Score(recipe.criterion, recipe.seed)]).run(need(facts.original, "original"), facts)
                if self.samples is not None and recipe.repair:
                    Pipeline([Rotate()]).run(need(facts.original, "original"), facts)
        groups = {group.id for group in need(facts.coupling, "coupling").groups}
        needed = recipe.scope == "sensitivity" and not target.startswith("channels") and groups
        if needed and not groups <= (facts.curves or {}).keys():
            with self.stage("sensitivity", "measuring what each group costs"):
                Pipeline([Sensitivity(recipe.repair)]).run(need(facts.original, "original"), facts)
        if target.startswith("latency") and facts.prices is None:
            with self.stage("latency table", "timing layers"):
                facts.prices = self._timed(self._model, facts)
        return self._model

    def _timed(self, model: Model, facts: Facts) -> Prices:
        """What the model takes under any plan, by timing its layers here."""
        from onnxprune.latency.model import LatencyModel

        coupling, align = need(facts.coupling, "coupling"), parse_align(self.recipe.align, "latency")
        shapes = need(facts.shapes, "shapes")
        table = LatencyModel(model, coupling, shapes, align=align.channels, progress=self._timing)
        table.prepare({group.factor: widths(group, coupling, align) for group in coupling.groups})
        return table

    def _timing(self, what: str, done: int, steps: int) -> None:
        self.stage.tell(f"timing {what} ({done} of {steps})")

    def draft(self, target: str) -> tuple[Model, Model]:
        """The normalised original and the model that a target comes to, cut but neither proven nor repaired.

        Raises:
            TargetError: the target cannot be reached; says what is reachable.
        """
        model, facts = self.planned(target)
        return model, PruneChannels().run(model, facts)

    def _freeze(self, model: Model, facts: Facts, check: verify.Check) -> None:
        """Find the groups that break the law, and plan without them from now on."""
        plan = need(facts.plan, "plan")

        def holds(some: Sequence[str]) -> bool:
            part = dataclasses.replace(facts, plan=plan.without(set(plan.keep) - set(some)))
            return law(model, part, PruneChannels()(model, dataclasses.replace(part)), self.recipe.seed).ok

        if not holds([]):
            raise VerificationError(f"{model.name}: cannot be verified: {check.text}; --no-verify skips the proof")
        found = verify.isolate(list(plan.keep), holds)
        self._facts.frozen |= dict.fromkeys(found, f"the verifier found: {check.text}")
        self._facts.coupling = self._facts.scores = self._facts.statistics = self._facts.prices = None


def drifted(changed: Model, original: Model, feeds: Feeds) -> float:
    """The mean divergence of a model's outputs from another's."""
    names = [output.name for output in original.graph.output]
    small, large = (session.Session(model, names, threads=0) for model in (changed, original))
    return float(np.mean([divergence(small.run(feed), large.run(feed)) for feed in feeds]))


def law(model: Model, facts: Facts, pruned: Model, seed: int) -> verify.Check:
    """The law for the exact groups of a plan; for the others that the model runs and keeps its interface."""
    chosen = need(facts.plan, "plan")
    inexact = {group.id for group in need(facts.coupling, "coupling").groups if not group.exact} & chosen.keep.keys()
    exact = pruned
    if inexact:
        facts = dataclasses.replace(facts, plan=chosen.without(inexact))
        exact = PruneChannels()(model, dataclasses.replace(facts))
    masked = MaskChannels()(model, dataclasses.replace(facts))
    outcome = verify.compare(exact, masked, seed=seed, kept=kept_by(facts))
    if outcome.ok and inexact:
        runs = verify.compare(pruned, model, seed=seed, values=False)
        return dataclasses.replace(outcome, ok=runs.ok, text=runs.text)
    return outcome


def kept_by(facts: Facts) -> Callable[[str], Indices]:
    """What the plan keeps along the axes of any value."""
    coupling = need(facts.coupling, "coupling")
    keeper = Keeper(need(facts.plan, "plan").positions(coupling))
    return lambda value: keeper(coupling.axes.get(value, ()))


def _check_weights(model: Model) -> None:
    if not model.has_floats:
        raise ModelError(
            f"{model.name}: has no floating-point weights to rank channels by: prune the model before it is converted to integers"
        )
