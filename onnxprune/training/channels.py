"""Training that makes a model smaller: channels go between stages of training, until a target holds; one run that can be killed.

    group_sl    train while weak channels shrink (`onnxprune.training.group_lasso`), prune, fine-tune
    iterative   prune a part, fine-tune, and again, each time leaving the same fraction
    oneshot     prune, fine-tune
    any other   train under masks on channels, by a recipe of `onnxprune.training.recipes`, and cut out what is masked at its end

Pruning is `onnxprune.driver.prune.prune`: proven, and repaired on samples of the training data. Unless told otherwise training is
to put out what the model did as it came, which needs no labels.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.batching import Batch
from onnxprune.data.samples import Samples, open_samples
from onnxprune.driver.prune import analyze, apply, check, make_plan, price, prune
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model, Source
from onnxprune.options.prune import Recipe, Target
from onnxprune.options.train import Sparse, Training, turns
from onnxprune.pruning.cost import COST_METRICS
from onnxprune.training.channel_masks import ChannelSelection
from onnxprune.training.data import Data
from onnxprune.training.devices import devices
from onnxprune.training.group_lasso import GroupNorms
from onnxprune.training.layers import layers
from onnxprune.training.recipes import Run, methods, rated
from onnxprune.training.session import Material, Session, Tuned, kept, opened
from onnxprune.training.trainer import Phase
from onnxprune.verify.law import Check
from onnxprune.verify.metrics import Evaluation

__all__ = ["train"]

Tell = Callable[[str], None]
_CALIBRATION = 512
"""Samples of the training data that repair and the choice of widths go by."""
_LARGEST = 2_000_000_000
"""Bytes of weights that fit in one message, with the graph."""


def train(
    source: Source,
    material: Material,
    recipe: Sparse,
    options: Training | None = None,
    *,
    progress: Tell | None = None,
) -> Tuned:
    """Remove channels and train, by a method of `CHANNEL_METHODS`; the graph becomes smaller.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed. It is the teacher, if the material has no other.
        material: what to train with. Its checkpoint spans all stages.
        recipe: with a target.
        options: how it is trained; the epochs are those of each training.
        progress: told how it goes.

    Raises:
        ModelError: a model cannot be read, or not be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        TargetError: the target cannot be reached; says what is reachable.
        VerificationError: the model cannot be run, so that no surgery can be proven.
        RequirementError: training diverged.
    """
    return _Course(source, material, recipe, options or Training(), progress or (lambda _: None)).run()


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is done at a time: ``learn`` while channels shrink, ``prune`` to a fraction of the original, ``tune``, or ``mask``."""

    kind: str
    name: str
    fraction: float = 1.0


def _stages(recipe: Sparse, target: Target) -> list[_Stage]:
    """A method as stages; a fraction is reached in rounds that each leave the same fraction."""
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


@dataclass(slots=True)
class _Place:
    """Where a run is, as it is kept beside the checkpoints of its trainings.

    Attributes:
        number: of the next stage.
        model: that it begins with, as bytes: what goes on after a kill has nothing else.
        remaining: the fraction of the target's metric that is left.
        stages: what the stages before it came to.
        epochs: of the trainings before it.
    """

    number: int
    model: bytes
    remaining: float = 1.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


class _Course:
    """One run: its stages in order, each of which ends with a model that the next one begins with."""

    def __init__(self, source: Source, material: Material, recipe: Sparse, options: Training, tell: Tell) -> None:
        tell("reading")
        self._begun, self._tell, self._recipe = time.monotonic(), tell, recipe
        self._target = Target.parse(recipe.target)
        self._source = Model.of(source)
        _check_size(self._source)
        teacher = self._source if material.teacher is None else Model.of(material.teacher)
        self._material = dataclasses.replace(material, teacher=teacher)
        self._where = devices(options.device, options.precision)
        self._data = opened(material, self._source, options, self._where)
        self._options = options.settled(teacher=True, labelled=self._data.labelled)
        self._evaluation: Evaluation | None = None
        if material.evaluation is not None and not self._where.rank:
            preprocess = material.preprocess or None
            judged = open_samples(material.evaluation, self._source.inputs, option="--eval", preprocess=preprocess)
            self._evaluation = Evaluation(teacher, judged, options.metric)
        self._surgery(self._target.fraction)  # says what is wrong with it before anything is trained
        if self._target.metric != "latency":  # which would have to be measured
            tell("checking the target")
            asked = Recipe(target=recipe.target, criterion="l2", scope="global", align=recipe.align, protect=recipe.protect)
            make_plan(self._source, asked)
        self._checkpoint = kept(material, self._options, str(recipe), self._source, teacher, self._data.source)

    def run(self) -> Tuned:
        """Every stage from where the checkpoint is; the model of the last one."""
        place = self._where.share(self._resumed() or self._first())
        stages = _stages(self._recipe, self._target)
        for stage in stages[place.number :]:
            begun = time.monotonic()
            model = _read(place.model, self._source)
            if stage.kind == "prune":
                row = self._prune(stage, model, place) if not self._where.rank else {}
            elif stage.kind == "mask":
                row = self._mask(stage, model, place)
            else:
                trained = self._train(stage, model)
                place.model, place.epochs = _bytes(trained.compiled), place.epochs + trained.report["epochs"]
                row = self._row(stage.name, trained.compiled, place.stages[-1])
            place.stages.append({**row, "seconds": time.monotonic() - begun})
            place.number += 1
            self._keep(place)
            place = self._where.share(place)
        model = _read(place.model, self._source)
        return Tuned(self._report(place, model), self._where.rank == 0, compiled=model)

    def _first(self) -> _Place:
        found = analyze(self._source, protect=self._recipe.protect)
        cost = found.costs.cost({})
        row = self._row("original", self._source, dataclasses.asdict(cost))
        return _Place(0, _bytes(found.model), stages=[{**row, "seconds": 0.0}])

    def _resumed(self) -> _Place | None:
        if self._checkpoint is None:
            return None
        self._checkpoint.load()
        return _Place(**self._checkpoint.beside) if self._checkpoint.beside else None

    def _keep(self, place: _Place) -> None:
        """Note where the run is, and with it that no training of the next stage has begun."""
        if self._checkpoint is None:
            return
        self._checkpoint.beside = dataclasses.asdict(place)
        if not self._where.rank:
            self._checkpoint.save({})

    def _train(self, stage: _Stage, model: Model) -> Tuned:
        log = self._material.log and Path(self._material.log) / stage.name.replace("/", " of ")
        material = dataclasses.replace(self._material, log=log)
        learn = stage.kind == "learn"  # without normalisations, which would take back what shrinks before them
        options = dataclasses.replace(self._options, restore_norms="no" if learn else self._options.restore_norms)
        session = Session(model, material, options, tell=self._tell, data=self._data, checkpoint=self._checkpoint)
        phase = Phase(stage.name, self._options.epochs)
        if learn:
            norms = GroupNorms(session.module, analyze(model, protect=self._recipe.protect).coupling)

            def shrink(step: int, steps: int) -> None:
                # As much in a long training as in a short one; with the learning rate, so that what matters can be learnt back.
                norms.shrink(self._recipe.penalty * self._options.factor((step + 0.5) / steps) / steps)

            # Only the end of the phase is as sparse as it shall be: no epoch before it is the result, however good.
            phase = dataclasses.replace(phase, each=shrink, ready=1.0)
        return session.train([phase])

    def _mask(self, stage: _Stage, model: Model, place: _Place) -> dict[str, Any]:
        """Train under masks by a recipe of sparsity, and cut out what they have left nothing of.

        Raises:
            VerificationError: cutting it out changes what the model computes.
        """
        recipe, options = self._recipe, rated(self._recipe, self._options)
        surgery = self._surgery(stage.fraction)
        proven = prune(model, surgery, agreement=False, progress=self._tell)  # groups that cannot be cut stay whole
        found = analyze(model, protect=recipe.protect)
        session = Session(
            model, self._material, options, sparse=True, tell=self._tell, data=self._data, checkpoint=self._checkpoint
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
        run = Run(session, recipe, layers(session.module), selection)
        trained = session.train(methods()[recipe.method].phases(run))
        plan = selection.plan({name: session.module.value_of(name) for name in run.layers})
        self._tell("cutting out what is masked")
        small = apply(trained.compiled, plan)
        proof = check(trained.compiled, small, plan, seed=options.seed)
        if not proof.ok:
            raise VerificationError(f"{self._source.name}: what was masked cannot be cut out: {proof.text}")
        cost = dataclasses.asdict(price(found, plan)[1])
        place.model, place.epochs = _bytes(small), place.epochs + trained.report["epochs"]
        return {**self._row(stage.name, small, cost), "verification": _verified(proof)}

    def _prune(self, stage: _Stage, model: Model, place: _Place) -> dict[str, Any]:
        """Prune the model of a place to a fraction of the original, less what went before."""
        fraction = min(stage.fraction / place.remaining, 1.0)
        recipe = self._surgery(fraction)
        result = prune(model, recipe, samples=_Drawn(self._data), agreement=False, progress=self._tell)
        place.remaining *= float(result.report.obtained.get(self._target.metric, fraction))
        place.model = _bytes(result.compiled)
        proof = result.report.verification
        assert proof is not None  # noqa: S101 - the recipe asks for it
        row = self._row(stage.name, result.compiled, dataclasses.asdict(result.report.after))
        return {**row, "verification": _verified(proof), "repaired": len(result.report.repairs)}

    def _row(self, name: str, model: Model, cost: Mapping[str, Any]) -> dict[str, Any]:
        """What a stage came to."""
        score = None if self._evaluation is None else float(self._evaluation.of(model).pruned)
        return {"stage": name, **{metric: cost[metric] for metric in COST_METRICS}, "score": score}

    def _surgery(self, fraction: float) -> Recipe:
        """What pruning is told."""
        asked = self._recipe
        return Recipe(
            target=f"{self._target.metric}={max(math.floor(fraction * 1e6), 1) / 1e6}",  # never above what is asked for
            criterion=asked.criterion,
            scope=asked.scope,
            align=asked.align,
            protect=asked.protect,
            seed=self._options.seed,
        )

    def _report(self, place: _Place, model: Model) -> dict[str, Any]:
        first, last, judge = place.stages[0], place.stages[-1], self._evaluation
        score = None
        if judge is not None:
            found = judge.of(model)
            score = {
                "metric": found.metric,
                "original": found.original,
                "before": first["score"],
                "after": found.pruned,
                "samples": found.samples,
                "source": found.source,
            }
        weights = [weight.array() for weight in model.weights.values() if weight.is_float and len(weight.shape) > 1]
        return {
            "model": self._source.name,
            "teacher": self._material.teacher.name if isinstance(self._material.teacher, Model) else None,
            "loss": self._options.loss,
            "recipe": self._recipe.to_dict(),
            "requested": str(self._target),
            "obtained": {metric: last[metric] / max(first[metric], 1) for metric in COST_METRICS},
            "stages": place.stages,
            "epochs": place.epochs,
            "steps_per_epoch": self._data.steps,
            "score": score,
            "sparsity": 1 - sum(map(np.count_nonzero, weights)) / max(sum(array.size for array in weights), 1),
            "device": str(self._where.device),
            "processes": self._where.world,
            "seconds": time.monotonic() - self._begun,
        }


class _Drawn(Samples):
    """The first samples of a shuffled epoch of training data."""

    def __init__(self, data: Data) -> None:
        self.source, self.labelled, self._batches = data.source, data.labelled, list[Batch]()
        for batch in data.epoch(0):
            if sum(known.size for known in self._batches) >= _CALIBRATION:
                break
            self._batches.append(batch)
        self.count = sum(batch.size for batch in self._batches)

    def batches(self, size: int = 16) -> Iterator[Batch]:  # whoever asks for a size assembles them anew
        return iter(self._batches)


def _verified(proof: Check) -> dict[str, Any]:
    return {"ok": proof.ok, "error": float(proof.error), "runs": proof.runs}


def _bytes(model: Model) -> bytes:
    return bytes(model.to_proto().SerializeToString())


def _read(held: bytes, like: Model) -> Model:
    model = Model.of(held)
    model.name, model.external = like.name, like.external
    return model


def _check_size(model: Model) -> None:
    """Between stages a model is one message.

    Raises:
        OptionError: it would be too large for one.
    """
    if model.nbytes >= _LARGEST:
        raise OptionError(f"{model.name}: has 2 GB of weights or more: prune it, and train what is left with finetune")
