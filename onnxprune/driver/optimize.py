"""The fastest model that still does its job: levers mixed, by what is measured here."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.data.samples import held_out, open_samples, optional_samples, sized
from onnxprune.driver.distilling import DISTILLATION, Distiller, distilled
from onnxprune.driver.levers import LEVERS
from onnxprune.driver.levers.base import Ground, Made, Mixture
from onnxprune.driver.levers.precision import Precision
from onnxprune.driver.mixing import search
from onnxprune.driver.named import check_protected
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import demand
from onnxprune.driver.prune import analyzed
from onnxprune.driver.report import LeverReport, OptimizeReport
from onnxprune.driver.result import ModelResult
from onnxprune.driver.trials import Meets, Ratios, Trial, Trials, Wish, WithinDrop, size_share
from onnxprune.errors import ModelError, OptionError, TargetError
from onnxprune.ir.files import source_bytes, written_bytes
from onnxprune.ir.history import begin, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.node import QDQ, every_node
from onnxprune.kernels.loading import library
from onnxprune.latency.benchmark import machine_of
from onnxprune.latency.node_times import NodeTime, node_times
from onnxprune.latency.timer import measure_ratios
from onnxprune.options.gates import parse_drop
from onnxprune.options.optimize import OptimizeRecipe, seconds
from onnxprune.verify.drift import measure_drift
from onnxprune.verify.metrics import Evaluation

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples, SamplesLike
    from onnxprune.passes.base import Progress

__all__ = ["Clock", "OptimizeResult", "optimize"]

_EVERY, _FEWEST = 4, 16
"""Of so many samples one is held out to judge by; and how many there must be for that."""
_FINALISTS, _SECONDS = 3, 2.0
"""Models that are timed afresh after the search, and for how long each."""
_SEVEN_BITS = "int8 weights take 7 bits, as x86 processors without VNNI need; for others --reduce-range no may keep more"
_FEW = 4
"""Samples that a drop is without a note, at least."""


@dataclass(frozen=True, repr=False)
class OptimizeResult(ModelResult):
    """A model that was made faster, or smaller.

    Attributes:
        report: what happened.
    """

    report: OptimizeReport


@dataclass(frozen=True, slots=True)
class Clock:
    """How models are timed.

    Attributes:
        ratios: times whole models.
        nodes: times each node that ONNX Runtime runs for a model.
    """

    ratios: Ratios
    nodes: Callable[[Model], Sequence[NodeTime]]

    @classmethod
    def at(cls, samples: Samples) -> Clock:
        """ONNX Runtime here, on one thread, with one input of the sizes of the first sample."""
        sample = next(samples.batches(1))
        shapes = {name: array.shape for name, array in sample.feeds.items()}
        return cls(
            lambda original, models, seconds: measure_ratios(original, models, seconds=seconds, shapes=shapes),
            lambda model: node_times(model, shapes=shapes),
        )


def optimize(
    source: ModelSource,
    recipe: OptimizeRecipe | str | None = None,
    *,
    samples: SamplesLike | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
    distil: Distiller | None = None,
) -> OptimizeResult:
    """Make a model as fast as it can be within a drop of its score, or the most accurate one that is fast or small enough.

    `onnxprune.pipeline.optimizing` has the function for users: arguments and errors are the same, and it makes ``distil``, which
    trains the best model on the recipe's ``data``.
    """
    recipe, stages = OptimizeRecipe.of(recipe), Stages(progress)
    until = time.monotonic() + seconds(recipe.time)
    original, given = _opened(source, recipe.calib if samples is None else samples, recipe, distil)
    learnt, judges = _parts(given, recipe, original)
    clock = clock or Clock.at(judges)
    with stages("evaluation", "taking the original's score"):
        evaluation = Evaluation(original, judges, recipe.metric)
    wish = Meets(recipe.target) if recipe.targeted else WithinDrop(evaluation.original, parse_drop(recipe.max_drop))
    ground = Ground(original, recipe, learnt, stages, clock.nodes)
    with ground.stack:
        trials = Trials(original, [kind(ground) for kind in LEVERS], evaluation, clock.ratios, stages, until)
        notes = [*filter(None, [given.notice]), *_searched(trials, wish, recipe)]
        found, made = _confirmed(trials, wish, clock, stages, _advice(trials, wish, recipe))
        if distil:
            found, made, told = distilled(trials, wish, found, made, distil, stages)
            notes.append(told)
        pulled = tuple(_pulled(trials, made, judges, clock, stages))
    _demanded(pulled, recipe, original)
    report = OptimizeReport(
        model=original.name,
        requested=str(recipe.target) if recipe.targeted else f"max-drop={recipe.max_drop}",
        chosen=str(found.mixture),
        latency=found.latency,
        size=found.size,
        score=trials.score(made.mixture),
        levers=pulled,
        kernels=tuple(layer for step in made.steps for layer in step.kernels),
        tried=tuple(_rows(trials, wish, found)),
        failed={str(mixture): why for mixture, why in trials.failed.items()},
        **_costs(original, made, stages),
        judged=_judged(recipe, learnt, judges),
        machine=machine_of(["cpu"], 1),
        seconds=dict(stages.seconds),
        notes=(*notes, *(note for step in made.steps for note in step.notes)),
    )
    return OptimizeResult(report, compiled=made.model)


def _demanded(pulled: Sequence[LeverReport], recipe: OptimizeRecipe, original: Model) -> None:
    """Raises where an output is not tested that must be."""
    for check in (lever.check for lever in pulled if lever.check and recipe.require_proof):
        demand(check, original.name)


def _opened(source: ModelSource, samples: SamplesLike, recipe: OptimizeRecipe, distil: Distiller | None) -> tuple[Model, Samples]:
    """The model, at the sizes of its samples, and the samples; what would distil it finds nothing wrong with it."""
    if recipe.kernels:
        library()  # says at once where it cannot be built
    original = begin(Model.of(source, recipe.shape), source, recipe_text("optimize", recipe))
    _check(original)
    check_protected(recipe.protect, original)
    given = optional_samples(samples, original.inputs, recipe.preprocess)
    if given is None:
        raise OptionError("what a model loses is measured on samples, which repair and int8 need, too: add --calib DATA")
    original = sized(original, given)
    if distil:
        distil.check(original)
    return original, given


def _searched(trials: Trials, wish: Wish, recipe: OptimizeRecipe) -> Iterator[str]:
    """Search; yields what the user should know of it."""
    try:
        search(trials, wish)
    except TimeoutError:
        yield f"the search ended after --time {recipe.time}: with more time it may find better"
    yield from (note for lever in trials.levers for note in lever.notes)
    yield from _advice(trials, wish, recipe)
    count = trials.evaluation.count
    if len(trials.evaluation.answers) == 1:
        yield f"the original has one answer for all {count} samples that judge, which says little: give more kinds of them"
    if isinstance(wish, WithinDrop) and wish.drop * count < _FEW:
        yield f"{count} samples judge: each is {1 / max(count, 1):.2%} of a score like top1, and the drop {wish.drop:.2%}"


def _advice(trials: Trials, wish: Wish, recipe: OptimizeRecipe) -> list[str]:
    """What may keep more, where int8 loses more than the drop."""
    int8 = [trial for trial in trials.tried.values() if Precision.name in dict(trial.mixture.choices)]
    lost = isinstance(wish, WithinDrop) and not all(map(wish.holds, int8))
    return [_SEVEN_BITS] if lost and recipe.reduce_range == "auto" else []


def _check(model: Model) -> None:
    """Raises where there is nothing to make cheaper."""
    node = next((node for node in every_node(model.graph) if node.op_type in QDQ or "Integer" in node.op_type), None)
    if node is not None:
        name = node.name or node.output[0]
        raise ModelError(f"{model.name}: computes in int8 already ({node.op_type} {name!r}): optimise the model it came from")
    if not model.has_floats:
        raise ModelError(f"{model.name}: has no floating-point weights: there is nothing to cut and nothing to round")


def _parts(given: Samples, recipe: OptimizeRecipe, model: Model) -> tuple[Samples, Samples]:
    """The samples that levers learn from, and those that judge."""
    if recipe.eval:
        return given, open_samples(recipe.eval, model.inputs, option="--eval", preprocess=recipe.preprocess or None)
    if given.count is not None and given.count < _FEWEST:
        raise OptionError(
            f"{given.source}: has {given.count} samples; each fourth is held out to judge by, so give {_FEWEST} or more, "
            "or others with --eval DATA"
        )
    return held_out(given, model.inputs, _EVERY)


def _judged(recipe: OptimizeRecipe, learnt: Samples, judges: Samples) -> str:
    if recipe.eval:
        return f"judged on {judges.source}; learnt from {learnt.source}"
    return f"judged on each fourth sample of {judges.source}; learnt from the others"


def _confirmed(trials: Trials, wish: Wish, clock: Clock, stages: Stages, advice: Sequence[str]) -> tuple[Trial, Made]:
    """The best model by what is measured afresh, and what is known of it.

    Raises:
        TargetError: none is clearly faster than the original, or meets the target.
    """
    ranked = [trial for trial in trials.ranked(wish) if trial.mixture != Mixture()]
    for at in range(0, len(ranked), _FINALISTS):
        finalists = ranked[at : at + _FINALISTS]
        made = [trials.made(trial.mixture) for trial in finalists]
        with stages("confirming", "timing the best models afresh"):
            fresh = clock.ratios(trials.original, [one.model for one in made], _SECONDS)
        timed = [dataclasses.replace(trial, latency=ratio) for trial, ratio in zip(finalists, fresh, strict=True)]
        good = [trial for trial in timed if wish.holds(trial) and wish.improves(trial)]
        if good:
            best = wish.choose(good)
            return best, made[timed.index(best)]
    raise TargetError("; ".join([_nothing(trials, wish), *advice]))


def _nothing(trials: Trials, wish: Wish) -> str:
    """Why no model is taken, and what came nearest."""
    name, count = trials.original.name, len(trials.tried) - 1
    mixtures = [trial for trial in trials.tried.values() if trial.mixture != Mixture()]
    if not mixtures:
        reasons = "; ".join(dict.fromkeys([*trials.failed.values(), *(n for lever in trials.levers for n in lever.notes)]))
        return f"{name}: nothing could be tried within the time: {reasons or 'give more --time'}"
    if isinstance(wish, Meets):
        near = min(mixtures, key=wish.of)
        told = f"{wish.target.metric}={wish.of(near):.3f}"
        reason = f" ({list(trials.failed.values())[-1]})" if trials.failed else ""
        nearest = f"{near.mixture} comes nearest of {count} mixtures with {told}"
        return f"{name}: target {wish.target} cannot be reached: {nearest}{reason}"
    fastest, best = min(mixtures, key=lambda trial: trial.latency), max(mixtures, key=lambda trial: trial.score)
    told = f"the fastest, {_told(fastest, wish)}" + (f"; what keeps most, {_told(best, wish)}" if best != fastest else "")
    out = "allow a larger --max-drop, or give more samples"
    return f"{name}: nothing of {count} mixtures is clearly faster within a drop of {wish.drop:.2%}: {told}; " + (
        "the time was over: give more --time" if trials.over else out
    )


def _told(trial: Trial, wish: WithinDrop) -> str:
    return f"{trial.mixture}, takes {trial.latency:.3f} of the original's time and loses {wish.original - trial.score:.2%}"


def _pulled(trials: Trials, made: Made, judges: Samples, clock: Clock, stages: Stages) -> Iterator[LeverReport]:
    """What each lever gave, when it is pulled after those before it."""
    results = [list(step.models.values())[-1] for step in made.steps]
    with stages("confirming", "timing what each lever gives"):
        latencies = clock.ratios(trials.original, results, _SECONDS / 2)
    exact = {lever.name: lever.exact for lever in trials.levers} | {DISTILLATION: False}
    mixture = Mixture()
    for step, model, latency in zip(made.steps, results, latencies, strict=True):
        mixture = mixture.having(step.lever, step.choice)
        with stages("agreement", f"comparing outputs with the original's: {step.choice}"):
            drift = {what: measure_drift(one, trials.original, judges) for what, one in step.models.items()}
            score = trials.score(mixture).pruned
        size = size_share(model, trials.original)
        yield LeverReport(step.lever, step.choice, exact[step.lever], latency, size, score, drift, step.check, step.kept)


def _costs(original: Model, made: Made, stages: Stages) -> dict[str, Any]:
    """What the original costs, and the result: in int8 a model has the MACs and parameters that it had in float."""
    integers = itertools.dropwhile(lambda step: step.lever != Precision.name, made.steps)
    floats = [list(step.models.values())[-1] for step in made.steps[: len(made.steps) - len(list(integers))]]
    with stages("agreement", "counting MACs and parameters"):
        before, after = (analyzed(model).costs.original() for model in (original, [original, *floats][-1]))
    after = dataclasses.replace(after, size=written_bytes(made.model))
    return {"before": before, "after": after, "nbytes": (source_bytes(original), after.size)}


def _rows(trials: Trials, wish: Wish, found: Trial) -> Iterator[dict[str, Any]]:
    for trial in trials.tried.values():
        row = dataclasses.asdict(trial) | {"mixture": str(trial.mixture), "choices": dict(trial.mixture.choices)}
        yield row | {"holds": wish.holds(trial), "chosen": trial.mixture == found.mixture}
