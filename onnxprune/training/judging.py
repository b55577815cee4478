"""How good a model is after its training: on samples that it did not see, where there are some."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from onnxprune.data.samples import open_samples
from onnxprune.driver.costs import before_and_after, cost_of
from onnxprune.driver.judgement import Judgement, hold
from onnxprune.errors import OptionError
from onnxprune.ir.history import begin, history, recipe_text
from onnxprune.ir.model import Model
from onnxprune.verify.drift import measure_drift
from onnxprune.verify.metrics import QualityScore

if TYPE_CHECKING:
    from onnxprune.ir.model import ModelSource
    from onnxprune.options.fields import Options
    from onnxprune.training.inputs import TrainingInputs
    from onnxprune.training.session import TrainedModel

__all__ = ["check_gates", "judged"]


def check_gates(inputs: TrainingInputs) -> None:
    """Gates need samples that training does not see.

    Raises:
        OptionError: there are none.
    """
    if inputs.gates.asked and inputs.evaluation is None:
        raise OptionError(f"{inputs.gates.asked} needs samples to judge by, which training does not see: add --eval DATA")


def judged(result: TrainedModel, source: ModelSource, inputs: TrainingInputs, command: str, *options: Options) -> TrainedModel:
    """The trained model, which remembers how it was trained, with what it is beside the teacher, or the model that it was.

    Args:
        result: the trained model.
        source: the model that it was.
        inputs: of the training.
        command: that trained it.
        options: the command's.

    Raises:
        QualityError: it is not as good as a gate asks.
    """
    if not result.first:
        return result
    before = Model.of(source)
    trained = begin(result.compiled, source, recipe_text(command, *options), history(before.proto))
    original = before if inputs.teacher is None else Model.of(inputs.teacher)
    apart = inputs.evaluation is not None
    samples = open_samples(
        inputs.evaluation if inputs.evaluation is not None else inputs.data,
        original.inputs,
        option="--eval" if apart else "--data",
        preprocess=inputs.preprocess or None,
    )
    drift = measure_drift(result.compiled, original, samples)
    if not apart:
        drift = dataclasses.replace(drift, source=f"{drift.source}, which training saw")
    report, score = result.report["score"], None
    if report:
        chance = 1 / drift.classes if report["metric"] == "top1" and drift.classes else 0.0
        told = (report["metric"], report["original"], report["after"], report["samples"], report["source"])
        score = QualityScore(*told, report["notice"], chance)
    found = Judgement(score, drift, sampled=True)
    hold(inputs.gates, found, original.name)
    both = {**before_and_after(cost_of(trained), trained), "before": cost_of(before)}  # training may remove channels
    costs = {name: cost and dataclasses.asdict(cost) for name, cost in both.items()}
    told_of = {"judgement": found.to_dict(), "drift": dataclasses.asdict(drift), **costs}
    return dataclasses.replace(result, report={**result.report, **told_of}, compiled=trained)
