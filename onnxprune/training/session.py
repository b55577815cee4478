"""A model trained and written back: what `finetune` does, and what every recipe of training begins and ends with."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.data.samples import Samples, open_samples
from onnxprune.driver.result import ModelResult
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model, Source
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.options.train import Training
from onnxprune.torch.module import to_module
from onnxprune.torch.write_back import write_back
from onnxprune.training import masks
from onnxprune.training.augment import Augment
from onnxprune.training.batchnorm import Feeds, Norm, fold, measure, settle, unfold
from onnxprune.training.checkpoint import Checkpoint
from onnxprune.training.data import Data
from onnxprune.training.devices import Devices, devices
from onnxprune.training.evaluate import Judge
from onnxprune.training.trainer import Phase, Trainer
from onnxprune.verify.metrics import Evaluation

__all__ = ["Material", "Session", "Tuned", "finetune", "form_of", "kept", "opened"]

Tell = Callable[[str], None]
_LEAST = 8
"""Samples of a batch from which its statistics are worth something."""
_EXAMPLES = 1024
"""Samples that statistics are taken of."""
Samplable = str | Path | Mapping[str, Any] | Samples


@dataclass(frozen=True)
class Material:
    """What to train with.

    Attributes:
        data: samples, in any form of `open_samples`; labels by the name ``label``.
        teacher: the model whose outputs are right.
        evaluation: samples to judge by; training should not see them.
        preprocess: how the images of folders become arrays.
        resume: a checkpoint; written while training goes on, and where there is one, training goes on from it.
        log: a folder for TensorBoard.
        every: seconds between checkpoints within an epoch.
    """

    data: Samplable
    teacher: Source | None = None
    evaluation: Samplable | None = None
    preprocess: str = ""
    resume: str | Path | None = None
    log: str | Path | None = None
    every: float = 30.0


@dataclass(frozen=True)
class Tuned(ModelResult):
    """A trained model.

    Attributes:
        report: what happened, as plain data.
        first: whether this process writes files, of several.
    """

    report: dict[str, Any]
    first: bool = True

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model: whole or not at all; of several processes, the first does.

        Raises:
            OutputError: the path cannot be written, or exists and ``force`` is not set.
        """
        if self.first:
            super().save(path, force=force)


class Session:
    """A module, its data and a trainer; begun with a model and ended with one.

    Attributes:
        model: the model as it came.
        module: what is trained.
        norms: normalisations that it has for the training alone.
        options: the options, settled.
        trainer: trains it.
    """

    def __init__(
        self,
        source: Source,
        material: Material,
        options: Training,
        *,
        itself: str = "never",
        sparse: bool = False,
        tell: Tell | None = None,
        run: str = "",
        data: Data | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Open everything.

        Args:
            source: the model.
            material: what to train with.
            options: how to train.
            itself: when the model as it came is the teacher, where none is named: ``never``, ``always``, or where the data is
                ``unlabelled``.
            sparse: whether weights shall be zero, if none is yet.
            tell: told what goes on.
            run: what else tells this run from others.
            data: that of the material, if it is open already.
            checkpoint: in place of the material's.

        Raises:
            ModelError: a model cannot be read, or not be computed in PyTorch.
            OptionError: samples do not fit, or options do not go together.
        """
        tell = tell or (lambda _: None)
        tell("reading")
        self._begun, self._tell = time.monotonic(), tell
        self.model = Model.of(source)
        self.where = devices(options.device, options.precision)
        self.data, self._material = data or opened(material, self.model, options, self.where), material
        form, self.norms = form_of(self.model), tuple[Norm, ...]()
        self.module = to_module(form)
        restore = options.restore_norms == "yes" or (
            options.restore_norms == "auto" and (sparse or bool(masks.of_zeros(self.module)))
        )
        if restore and self.data.size >= _LEAST:
            form, self.norms = unfold(form)
            self.module = to_module(form)
        self.module.to(self.where.device)
        self.measure()
        self._original = self.model if material.teacher is None else Model.of(material.teacher)
        self.taught = material.teacher is not None or (
            options.compares(labelled=self.data.labelled)
            and (itself == "always" or (itself == "unlabelled" and not self.data.labelled))
        )
        teacher = to_module(form_of(self._original)) if self.taught else None
        self.options = options.settled(teacher=teacher is not None, labelled=self.data.labelled)
        if options.patience and material.evaluation is None:
            raise OptionError(f"--patience {options.patience} needs samples to judge by: add --eval DATA")
        self._judged, self._judge = None, None
        if material.evaluation is not None:
            judged = open_samples(material.evaluation, self.model.inputs, option="--eval", preprocess=material.preprocess or None)
            seen = open_samples(material.evaluation, form_of(self.model).inputs, preprocess=material.preprocess or None)
            reference = teacher or to_module(form_of(self.model))
            reference.to(self.where.device)
            self._judged, self._judge = judged, Judge(seen, self.model, reference, options.metric)
        self._stack = ExitStack()
        self.trainer = Trainer(
            self.module,
            self.data,
            self.options,
            self.where,
            teacher=teacher,
            augment=Augment.of(options.augment, self.model.inputs, taught=not self.options.by_labels, seed=options.seed),
            score=self._judge,
            settle=self.settle,
            checkpoint=checkpoint or kept(material, self.options, run, self.model, self._original, self.data.source),
            tell=tell,
            log=self._logger(material.log),
        )
        if options.keep_zeros:
            masks.mask(self.module, masks.of_zeros(self.module))

    @property
    def added(self) -> frozenset[str]:
        """The constants of the module that the model does not have."""
        return frozenset(name for norm in self.norms for name in norm.constants)

    def examples(self) -> Iterator[Feeds]:
        """Some batches of the data."""
        for batch in itertools.islice(self.data.epoch(0), math.ceil(_EXAMPLES / self.data.size)):
            yield self.where.tensors(batch.feeds)

    def measure(self) -> None:
        """Let the normalisations of the training change nothing at the weights that the module has."""
        if self.norms:
            measure(self.module, self.norms, self.examples())

    def settle(self) -> None:
        """Give batch normalisations the statistics of the weights as they are.

        Those that training keeps mix in what earlier weights did, and where few weights are left, each step changes them much.
        """
        settle(self.module, self.examples())

    def train(self, phases: Sequence[Phase]) -> Tuned:
        """Train in phases, take masks away, and put the weights into the model.

        Raises:
            RequirementError: training diverged.
            OptionError: the checkpoint is of another run.
        """
        with self._stack:
            self.trainer.run(phases)
        masks.strip(self.module)
        fold(self.module, self.norms)
        result = write_back(self.module, self.model, leave=self.added)
        self._tell("comparing")
        return Tuned(self._report(result), self.where.rank == 0, compiled=result)

    def _report(self, result: Model) -> dict[str, Any]:
        score = None
        if self._judged is not None and self._judge is not None:
            judge = Evaluation(self._original, self._judged, self._judge.metric)
            before, after = judge.of(self.model), judge.of(result)
            score = {
                "metric": judge.metric,
                "original": before.original,
                "before": before.pruned,
                "after": after.pruned,
                "samples": after.samples,
                "source": after.source,
            }
        weights = {name: weight for name, weight in self.module.weights().items() if weight.dim() > 1}
        return {
            "model": self.model.name,
            "teacher": self._original.name if self.taught else None,
            "loss": self.options.loss,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.trainer.epochs],
            "steps_per_epoch": self.data.steps,
            "score": score,
            "sparsity": masks.sparsity(weights),
            "device": str(self.where.device),
            "processes": self.where.world,
            "seconds": time.monotonic() - self._begun,
        }

    def _logger(self, folder: str | Path | None) -> Callable[[Mapping[str, float], int], None] | None:
        if folder is None or self.where.rank:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise OptionError("--log needs TensorBoard: run pip install tensorboard") from error
        writer = SummaryWriter(str(folder))
        self._stack.callback(writer.close)

        def log(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        return log


def form_of(model: Model) -> Model:
    """The model as it is trained: weights of half precision are float32, since steps may be too small for them to see."""
    return as_float32(model) if float_types(model) & {"float16", "bfloat16"} else model


def opened(material: Material, model: Model, options: Training, where: Devices) -> Data:
    """The samples that a model is trained on here.

    Raises:
        OptionError: they do not fit.
    """
    return Data(
        material.data,
        form_of(model).inputs,
        batch=options.batch,
        steps=options.steps,
        seed=options.seed,
        shard=(where.rank, where.world),
        preprocess=material.preprocess or None,
    )


def kept(material: Material, options: Training, run: str, model: Model, teacher: Model, data: str) -> Checkpoint | None:
    """Where a run is kept, if it is, and what tells it from others."""
    if material.resume is None:
        return None
    told = {f"--{name.replace('_', '-')}": value for name, value in options.to_dict().items() if name != "device"}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
    known = {"model": _digest(model), "teacher": _digest(teacher), "data": data, "run": run, **told}
    return Checkpoint(Path(material.resume), known, material.every)


def _digest(model: Model) -> str:
    """A hash of the graph and the weights."""
    found = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for name, weight in sorted(model.weights.items()):
        found.update(name.encode())
        found.update(weight.array().tobytes())
    return found.hexdigest()[:16]


def finetune(source: Source, material: Material, options: Training | None = None, *, progress: Tell | None = None) -> Tuned:
    """Train a model with the weights it has; zeros stay zeros.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        material: what to train with.
        options: how to train.
        progress: told how it goes.

    Raises:
        ModelError: a model cannot be read, or not be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        RequirementError: training diverged.
    """
    session = Session(source, material, options or Training(), tell=progress)
    return session.train([Phase("finetune", session.options.epochs)])
