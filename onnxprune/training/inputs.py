"""The samples, models and files that a training reads and writes, and the checkpoint that belongs to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from onnxprune.data.memory import repeatable
from onnxprune.data.samples import SamplesLike, open_samples, sized
from onnxprune.ir.model import Model, ModelSource
from onnxprune.options.gates import Gates
from onnxprune.options.train import Training
from onnxprune.training.checkpoint import Checkpoint
from onnxprune.training.data import TrainingData
from onnxprune.training.devices import Devices
from onnxprune.training.student import trainable_form

__all__ = ["TrainingInputs"]

_HASH = 16
"""Hexadecimal digits of a hash of a model: 64 bits, so that two models of one user never have the same."""


@dataclass(frozen=True)
class TrainingInputs:
    """The samples, models and files of a training.

    Attributes:
        data: samples, in any form of `open_samples`; labels by the name ``label``.
        teacher: the model whose outputs are right.
        evaluation: samples to score by; training should not see them.
        preprocess: how the images of folders become arrays.
        resume: the file of a checkpoint. It is written while training goes on; where it exists, training goes on from it.
        log: a folder for TensorBoard.
        every: seconds between checkpoints within an epoch.
        gates: what the result must be as good as; its samples and metric are those of this class and of the training.
    """

    data: SamplesLike
    teacher: ModelSource | None = None
    evaluation: SamplesLike | None = None
    preprocess: str = ""
    resume: str | Path | None = None
    log: str | Path | None = None
    every: float = 30.0
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        """Samples are read several times, which an iterator is not."""
        for name in ("data", "evaluation"):
            object.__setattr__(self, name, repeatable(getattr(self, name)))

    @classmethod
    def of(cls, given: Self | SamplesLike) -> Self:
        """The inputs, or those that are samples alone."""
        return given if isinstance(given, cls) else cls(given)  # type: ignore[arg-type]  # mypy does not see that it is the rest

    def open_data(self, model: Model, options: Training, devices: Devices) -> TrainingData:
        """The samples that this process trains the model on.

        Raises:
            OptionError: they cannot be read, or do not fit the model.
        """
        inputs, preprocess = trainable_form(model).inputs, self.preprocess or None
        samples = open_samples(self.data, inputs, option="--data", preprocess=preprocess)
        sized(model, samples)
        shard = devices.rank, devices.world
        return TrainingData(samples, inputs, batch=options.batch, steps=options.steps, seed=options.seed, shard=shard)

    def open_checkpoint(self, options: Training, run: str, model: Model, teacher: Model, data: str) -> Checkpoint | None:
        """The checkpoint of a run, if it has one.

        Args:
            options: all except the device tell this run from others.
            run: tells it too: the recipe, as text.
            model: that is trained.
            teacher: the model whose outputs are right.
            data: the source of the samples.
        """
        if self.resume is None:
            return None
        told = {f"--{name.replace('_', '-')}": value for name, value in options.to_dict().items() if name != "device"}
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
        known = {"model": _model_hash(model), "teacher": _model_hash(teacher), "data": data, "run": run, **told}
        return Checkpoint(Path(self.resume), known, self.every)


def _model_hash(model: Model) -> str:
    """A hash of the graph and the weights."""
    found = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for name, weight in sorted(model.weights.items()):
        found.update(name.encode())
        found.update(weight.array().tobytes())
    return found.hexdigest()[:_HASH]
