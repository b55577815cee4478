"""Training that makes a model smaller: channels go between stages of training, until a target holds; one run that can be killed.

    group_sl    train while weak channels shrink (`onnxprune.training.group_lasso`), prune, fine-tune
    iterative   prune a part, fine-tune, and again, each time leaving the same fraction
    oneshot     prune, fine-tune
    any other   train under masks on channels, by a recipe of `onnxprune.training.recipes`, and cut out what is masked at its end

Pruning is `onnxprune.driver.prune.prune`: proven, and repaired on samples of the training data. Without another teacher the model
learns the outputs of the model that was given, which needs no labels.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.batching import Batch
from onnxprune.data.samples import Samples, open_samples, sized
from onnxprune.driver.apply import carry_out
from onnxprune.driver.costs import outcome
from onnxprune.driver.named import standing
from onnxprune.driver.proof import judged
from onnxprune.driver.prune import analyzed, make_plan, prune
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model, ModelSource
from onnxprune.options.prune import Recipe
from onnxprune.options.registries import TRAININGS
from onnxprune.options.targets import Target
from onnxprune.options.train import Sparse, Training, turns
from onnxprune.passes.footprint import footprint
from onnxprune.pruning.cost import COST_METRICS
from onnxprune.training.channel_selection import ChannelSelection
from onnxprune.training.data import TrainingData
from onnxprune.training.devices import find_devices
from onnxprune.training.evaluate import score_report
from onnxprune.training.group_lasso import GroupNorms
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.layers import prunable_layers
from onnxprune.training.phase import Phase
from onnxprune.training.progress import Tell
from onnxprune.training.recipes.run import RecipeRun, with_rate
from onnxprune.training.session import ONLY_WEIGHTS, TrainedModel, TrainingSession
from onnxprune.verify.metrics import Evaluation
from onnxprune.verify.verdicts import Check

__all__ = ["train_channels"]

_CALIBRATION = 512
"""Samples of the training data by which pruning repairs weights and chooses widths."""
_LARGEST = 2_000_000_000
"""Bytes of weights that fit in one protobuf message, whose limit is 2 GiB, together with the graph."""


def train_channels(
    source: ModelSource,
    inputs: TrainingInputs,
    recipe: Sparse,
    options: Training | None = None,
    *,
    progress: Tell | None = None,
) -> TrainedModel:
    """Remove channels and train, by a method of `TRAININGS`; the graph becomes smaller.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed. It is the teacher, if ``inputs`` has no other.
        inputs: samples, teacher and files. The checkpoint spans all stages.
        recipe: with a target.
        options: of the training; the epochs are those of each stage.
        progress: called with the progress.

    Raises:
        ModelError: a model cannot be read, or cannot be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        TargetError: the target cannot be reached; says what is reachable.
        VerificationError: the model cannot be run, so that no pruning can be proven.
        RequirementError: training diverged.
    """
    return _ChannelRun(source, inputs, recipe, options or Training(), progress or (lambda _: None)).run()


@dataclass(frozen=True, slots=True)
class _Stage:
    """A part of the run. ``learn`` trains while channels shrink, ``prune`` prunes to a fraction of the original, ``tune``
    fine-tunes, and ``mask`` trains under masks on channels.
    """

    kind: str
    name: str
    fraction: float = 1.0


def _stages_of(recipe: Sparse, target: Target) -> list[_Stage]:
    """The stages of a method. Rounds reach the target by leaving the same fraction each: two to 0.49 leave 0.7 and 0.7."""
    if recipe.masks:
        return [_Stage("mask", recipe.method, target.fraction)]
    if recipe.method != "iterative":
        learn = [_Stage("learn", "group_sl")] if recipe.method == "group_sl" else []
        return [*learn, _Stage("prune", "prune", target.fraction), _Stage("tune", "finetune")]
    rounds = recipe.rounds or turns(target.fraction)
    found = []
    for turn in range(1, rounds + 1):
        found.append(_Stage("prune", f"prune {turn}/{rounds}", target.fraction ** (turn / rounds)))
        found.append(_Stage("tune", f"finetune {turn}/{rounds}"))
    return found


@dataclass(frozen=True, slots=True)
class _RunState:
    """The position of a run and its results so far, as a checkpoint holds them beside the state of a training.

    Attributes:
        number: of the next stage, from 0.
        model: that it begins with, as bytes: a run that goes on after a kill has nothing else.
        remaining: the fraction of the target's metric that is left.
        stages: results of the stages before it, as rows of the report.
        epochs: results of their epochs.
    """

    number: int
    model: bytes
    remaining: float = 1.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


class _ChannelRun:
    """A run of several stages. Each ends with a model, which the next one begins with."""

    def __init__(self, source: ModelSource, inputs: TrainingInputs, recipe: Sparse, options: Training, tell: Tell) -> None:
        tell("reading")
        self._begun, self._tell, self._recipe = time.monotonic(), tell, recipe
        assert recipe.target is not None  # noqa: S101 - `train` saw to it
        self._target = recipe.target
        self._source = Model.of(source, options.shape)
        _check_size(self._source)
        teacher = self._source if inputs.teacher is None else Model.of(inputs.teacher)
        self._inputs = dataclasses.replace(inputs, teacher=teacher)
        self._devices = find_devices(options.device, options.precision)
        self._data = inputs.open_data(self._source, options, self._devices)
        self._source = sized(self._source, self._data.samples)
        self._options = options.settled(teacher=True, labelled=self._data.labelled)
        self._evaluation: Evaluation | None = None
        if inputs.evaluation is not None and not self._devices.rank:
            preprocess = inputs.preprocess or None
            judged = open_samples(inputs.evaluation, self._source.inputs, option="--eval", preprocess=preprocess)
            self._evaluation = Evaluation(teacher, judged, options.metric)
        self._pruning_recipe(self._target.fraction, self._source)  # says what is wrong with it before anything is trained
        if not self._target.timed:  # which would have to be measured
            tell("checking the target")
            asked = Recipe(target=self._target, criterion="l2", scope="global", align=recipe.align, protect=recipe.protect)
            make_plan(self._source, asked)
        self._checkpoint = inputs.open_checkpoint(self._options, str(recipe), self._source, teacher, self._data.source)

    def run(self) -> TrainedModel:
        """Run every stage from the position of the checkpoint on; returns the model of the last one."""
        state = self._devices.share(self._resumed() or self._first())
        stages = _stages_of(self._recipe, self._target)
        for stage in stages[state.number :]:
            begun = time.monotonic()
            model = _deserialized(state.model, self._source)
            if stage.kind == "prune":
                state, row = self._prune(stage, model, state) if not self._devices.rank else (state, {})
            elif stage.kind == "mask":
                state, row = self._mask(stage, model, state)
            else:
                state, row = self._tune(stage, model, state)
            stages_done = [*state.stages, {**row, "seconds": time.monotonic() - begun}]
            state = dataclasses.replace(state, number=state.number + 1, stages=stages_done)
            self._keep(state)
            state = self._devices.share(state)
        model = _deserialized(state.model, self._source)
        return TrainedModel(self._report(state, model), self._devices.rank == 0, compiled=model)

    def _first(self) -> _RunState:
        found = analyzed(self._source, self._recipe.protect)
        cost = dataclasses.asdict(found.costs.original())
        row = self._row("original", self._source, cost)
        row["verification"] = _verified(judged(found.model, self._source, self._options.seed))  # what the first stage begins with
        prepared = dataclasses.asdict(footprint(found.model))  # it may take more or less than the file
        metric = self._target.metric
        remaining = prepared[metric] / max(cost[metric], 1) if metric in prepared else 1.0
        return _RunState(0, _serialized(found.model), remaining=remaining, stages=[{**row, "seconds": 0.0}])

    def _resumed(self) -> _RunState | None:
        if self._checkpoint is None:
            return None
        self._checkpoint.load()
        with self._checkpoint.taken():
            state = _RunState(**self._checkpoint.beside) if self._checkpoint.beside else None
            if state:
                _deserialized(state.model, self._source)
                if state.number < 0 or not state.remaining > 0:
                    raise ValueError("no such position")
        return state

    def _keep(self, state: _RunState) -> None:
        """Keep the position of the run; the checkpoint then says that the training of the next stage has not begun."""
        if self._checkpoint is None:
            return
        self._checkpoint.beside = dataclasses.asdict(state)
        if not self._devices.rank:
            self._checkpoint.save({})

    def _train(self, stage: _Stage, model: Model) -> TrainedModel:
        log = self._inputs.log and Path(self._inputs.log) / stage.name.replace("/", " of ")
        inputs = dataclasses.replace(self._inputs, log=log)
        learn = stage.kind == "learn"  # without normalisations, which would take back what shrinks before them
        options = dataclasses.replace(self._options, restore_norms="no" if learn else self._options.restore_norms)
        session = TrainingSession(model, inputs, options, tell=self._tell, data=self._data, checkpoint=self._checkpoint)
        phase = Phase(stage.name, self._options.epochs)
        if learn:
            norms = GroupNorms(session.module, analyzed(model, self._recipe.protect).coupling)

            def shrink(step: int, steps: int) -> None:
                # As much in a long training as in a short one; with the learning rate, so that what matters can be learnt back.
                norms.shrink(self._recipe.penalty * self._options.factor((step + 0.5) / steps) / steps)

            # Only at its end is the phase as sparse as it must be: no epoch before may be the result, however good its score.
            phase = dataclasses.replace(phase, each=shrink, ready=1.0)
        return session.train([phase])

    def _tune(self, stage: _Stage, model: Model, state: _RunState) -> tuple[_RunState, dict[str, Any]]:
        """Train the model, which keeps its costs."""
        trained = self._train(stage, model)
        row = self._row(stage.name, trained.compiled, state.stages[-1])
        return _after(state, trained.compiled, trained.report), row

    def _mask(self, stage: _Stage, model: Model, state: _RunState) -> tuple[_RunState, dict[str, Any]]:
        """Train under masks on channels, by a recipe of `onnxprune.training.recipes`, and cut out the masked channels.

        Raises:
            VerificationError: cutting it out changes what the model computes.
        """
        recipe, options = self._recipe, with_rate(self._recipe, self._options)
        pruning = self._pruning_recipe(stage.fraction, model)
        proven = prune(model, pruning, agreement=False, progress=self._tell)  # groups that cannot be cut stay whole
        found = analyzed(model, recipe.protect)
        session = TrainingSession(
            model, self._inputs, options, sparse=True, tell=self._tell, data=self._data, checkpoint=self._checkpoint
        )
        selection = ChannelSelection(
            session.module,
            found.model,
            found.coupling,
            found.shapes.batch,
            metric=self._target.metric,
            scope="global" if recipe.scope == "auto" else recipe.scope,
            align=recipe.align,
            whole=proven.report.frozen,
        )
        run = RecipeRun(session, recipe, prunable_layers(session.module), selection)
        trained = session.train(TRAININGS[recipe.method].value.phases(run))
        plan = selection.plan({name: session.module.value_of(name) for name in run.layers})
        self._tell("cutting out what is masked")
        cut = carry_out(trained.compiled, plan, Recipe(seed=options.seed), compare=False)
        cost = dataclasses.asdict(outcome(cut)[1])
        row = {**self._row(stage.name, cut.model, cost), "verification": _verified(cut.check)}
        return _after(state, cut.model, trained.report), row

    def _prune(self, stage: _Stage, model: Model, state: _RunState) -> tuple[_RunState, dict[str, Any]]:
        """Prune the model to the stage's fraction of the original, of which ``state.remaining`` is left."""
        fraction = min(stage.fraction / state.remaining, 1.0)
        recipe = self._pruning_recipe(fraction, model)
        result = prune(model, recipe, samples=_TrainingSamples(self._data), agreement=False, progress=self._tell)
        remaining = state.remaining * float(result.report.obtained.get(self._target.metric, fraction))
        row = self._row(stage.name, result.compiled, dataclasses.asdict(result.report.after))
        row |= {"verification": _verified(result.report.verification), "repaired": len(result.report.repairs)}
        return dataclasses.replace(state, model=_serialized(result.compiled), remaining=remaining), row

    def _row(self, name: str, model: Model, cost: Mapping[str, Any]) -> dict[str, Any]:
        """The row of the report for a stage: costs and score of its model."""
        score = None if self._evaluation is None else float(self._evaluation.of(model).pruned)
        return {"stage": name, **{metric: cost[metric] for metric in COST_METRICS}, "score": score}

    def _pruning_recipe(self, fraction: float, model: Model) -> Recipe:
        """The options for pruning a model in the making to a fraction of the target's metric."""
        asked = self._recipe
        return Recipe(
            target=Target(self._target.metric, max(math.floor(fraction * 1e6), 1) / 1e6),  # never above what is asked for
            criterion=asked.criterion,
            scope=asked.scope,
            align=asked.align,
            protect=standing(asked.protect, model),
            seed=self._options.seed,
        )

    def _report(self, state: _RunState, model: Model) -> dict[str, Any]:
        first, last, judge = state.stages[0], state.stages[-1], self._evaluation
        score = None
        if judge is not None:
            score = score_report(first["score"], judge.of(model))
        weights = [weight.array() for weight in model.weights.values() if weight.is_float and len(weight.shape) > 1]
        return {
            "model": self._source.name,
            "teacher": self._inputs.teacher.name if isinstance(self._inputs.teacher, Model) else None,
            "loss": self._options.loss,
            "recipe": self._recipe.to_dict(),
            "requested": str(self._target),
            "obtained": {metric: last[metric] / max(first[metric], 1) for metric in COST_METRICS},
            "stages": state.stages,
            "epochs": state.epochs,
            "steps_per_epoch": self._data.steps,
            "score": score,
            "notes": [f"each stage that cuts is proven on the model that it began with; between them, {ONLY_WEIGHTS}"],
            "sparsity": 1 - sum(map(np.count_nonzero, weights)) / max(sum(array.size for array in weights), 1),
            "device": str(self._devices.device),
            "processes": self._devices.world,
            "seconds": time.monotonic() - self._begun,
        }


class _TrainingSamples(Samples):
    """The first samples of a shuffled epoch of training data."""

    def __init__(self, data: TrainingData) -> None:
        self.source, self.labelled, self._batches = data.source, data.labelled, list[Batch]()
        for batch in data.epoch(0):
            if sum(known.size for known in self._batches) >= _CALIBRATION:
                break
            self._batches.append(batch)
        self.count = sum(batch.size for batch in self._batches)

    def batches(self, size: int = 16) -> Iterator[Batch]:  # of any size: the caller assembles batches of its own
        return iter(self._batches)


def _after(state: _RunState, model: Model, report: Mapping[str, Any]) -> _RunState:
    """The state after a training that ended with a model."""
    return dataclasses.replace(state, model=_serialized(model), epochs=[*state.epochs, *report["epochs"]])


def _verified(proof: Check | None) -> dict[str, Any]:
    assert proof is not None  # noqa: S101 - the recipes ask for it
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(proof)))  # a checkpoint holds no types of this package
    return plain


def _serialized(model: Model) -> bytes:
    return bytes(model.to_proto().SerializeToString())


def _deserialized(held: bytes, like: Model) -> Model:
    model = Model.of(held)
    model.name, model.external, model.sizes = like.name, like.external, like.sizes
    return model


def _check_size(model: Model) -> None:
    """Between stages a model is one message.

    Raises:
        OptionError: it would be too large for one.
    """
    if model.nbytes >= _LARGEST:
        raise OptionError(f"{model.name}: has 2 GB of weights or more: prune it, and train what is left with finetune")
