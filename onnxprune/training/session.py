"""A training from a model to a model: `finetune` is one, and each recipe fills one with its phases."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from onnxprune.data.samples import Samples, open_samples, sized
from onnxprune.driver.result import ModelResult
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model, ModelSource
from onnxprune.options.train import Training
from onnxprune.torch.module import GraphModule, to_module
from onnxprune.training import masks
from onnxprune.training.augment import Augment
from onnxprune.training.checkpoint import Checkpoint
from onnxprune.training.data import TrainingData
from onnxprune.training.devices import Devices, find_devices
from onnxprune.training.evaluate import ModuleEvaluator, score_report
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.phase import Phase
from onnxprune.training.progress import Tell
from onnxprune.training.student import Student, trainable_form
from onnxprune.training.trainer import Callbacks, Trainer
from onnxprune.verify.metrics import Evaluation, QualityMetric
from onnxprune.verify.structure import first_difference

__all__ = ["ONLY_WEIGHTS", "TrainedModel", "TrainingSession"]

ONLY_WEIGHTS = "outputs were not tested: training changes them. All but the weights is the file's: nodes, sizes, other constants"
"""What is proven of a model that was trained."""


@dataclass(frozen=True, repr=False)
class TrainedModel(ModelResult):
    """A trained model.

    Attributes:
        report: the results, as plain data.
        first: this process is the one that writes files, of several.
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


@dataclass(frozen=True)
class _Original:
    """The model that others are compared with.

    Attributes:
        model: the teacher that was named, else the model that is trained.
        teacher: the same as a module, if its outputs are what the student learns.
    """

    model: Model
    teacher: GraphModule | None

    @classmethod
    def of(cls, model: Model, inputs: TrainingInputs, options: Training, itself: str, *, labelled: bool) -> Self:
        """The original of a model that is trained; ``itself`` as for `TrainingSession`.

        Raises:
            ModelError: the teacher cannot be read, or cannot be computed in PyTorch.
        """
        original = model if inputs.teacher is None else Model.of(inputs.teacher)
        teaches = inputs.teacher is not None or (
            options.compares(labelled=labelled) and (itself == "always" or (itself == "unlabelled" and not labelled))
        )
        return cls(original, to_module(trainable_form(original)) if teaches else None)


@dataclass(frozen=True)
class _Validation:
    """Evaluation samples, and scores on them.

    Attributes:
        samples: as the model reads them.
        evaluator: scores the module while it is trained, on the same samples in float32.
    """

    samples: Samples
    evaluator: ModuleEvaluator

    @classmethod
    def of(
        cls,
        inputs: TrainingInputs,
        model: Model,
        teacher: GraphModule | None,
        metric: str | QualityMetric,
        devices: Devices,
    ) -> Self | None:
        """Open the evaluation samples, if there are some.

        Raises:
            OptionError: they cannot be read or do not fit, or the metric needs labels that they do not have.
        """
        if inputs.evaluation is None:
            return None
        form, preprocess = trainable_form(model), inputs.preprocess or None
        samples = open_samples(inputs.evaluation, model.inputs, option="--eval", preprocess=preprocess)
        widened = open_samples(inputs.evaluation, form.inputs, option="--eval", preprocess=preprocess)
        reference = (teacher or to_module(form)).to(devices.device)
        return cls(samples, ModuleEvaluator(widened, model, reference, metric))

    def compare(self, original: Model, before: Model, after: Model) -> dict[str, Any]:
        """The scores of three models in ONNX Runtime, as plain data."""
        evaluation = Evaluation(original, self.samples, self.evaluator.metric)
        return score_report(evaluation.of(before).pruned, evaluation.of(after))


class TrainingSession:
    """A model, its data and a trainer; it begins with a model and ends with one.

    Attributes:
        student: the model, and the module that is trained.
        data: the samples.
        devices: where it is trained.
        options: with the loss settled.
        trainer: trains the module.
    """

    def __init__(
        self,
        source: ModelSource,
        inputs: TrainingInputs,
        options: Training,
        *,
        itself: str = "never",
        sparse: bool = False,
        tell: Tell | None = None,
        run: str = "",
        data: TrainingData | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Open everything.

        Args:
            source: the model.
            inputs: samples, teacher and files.
            options: of the training.
            itself: when the model as it was given is the teacher, where none is named: ``never``, ``always``, or where the
                data is ``unlabelled``.
            sparse: weights become zero in the training.
            tell: called with the progress.
            run: tells this run from others, with the options: the recipe, as text.
            data: the samples, if they are open already.
            checkpoint: in place of the one of ``inputs``.

        Raises:
            ModelError: a model cannot be read, or cannot be computed in PyTorch.
            OptionError: samples do not fit, or options do not go together.
        """
        self._begun, self._tell, self._stack = time.monotonic(), tell or (lambda _: None), ExitStack()
        self._tell("reading")
        model = Model.of(source, options.shape)
        self.devices = find_devices(options.device, options.precision)
        self.data = data or inputs.open_data(model, options, self.devices)
        model = sized(model, self.data.samples)
        self.student = Student.of(model, self.data, self.devices, restore=options.restore_norms, sparse=sparse)
        self._original = _Original.of(model, inputs, options, itself, labelled=self.data.labelled)
        teacher = self._original.teacher
        self.options = options.settled(teacher=teacher is not None, labelled=self.data.labelled)
        if options.patience and inputs.evaluation is None:
            raise OptionError(f"--patience {options.patience} needs samples to judge by: add --eval DATA")
        self._validation = _Validation.of(inputs, model, teacher, options.metric, self.devices)
        augment = Augment.of(options.augment, model.inputs, taught=not self.options.by_labels, seed=options.seed)
        checkpoint = checkpoint or inputs.open_checkpoint(self.options, run, model, self._original.model, self.data.source)
        score = self._validation.evaluator if self._validation else None
        callbacks = Callbacks(score, self.student.update_statistics, self._tell, self._open_log(inputs.log))
        self.trainer = Trainer(
            self.student.module,
            self.data,
            self.options,
            self.devices,
            teacher=teacher,
            augment=augment,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )
        if options.keep_zeros:
            masks.apply_masks(self.student.module, masks.masks_of_zeros(self.student.module))

    @property
    def module(self) -> GraphModule:
        """The module that is trained."""
        return self.student.module

    def train(self, phases: Sequence[Phase]) -> TrainedModel:
        """Train in phases, and put the weights into the model; masks become zeros.

        Raises:
            RequirementError: training diverged.
            OptionError: the checkpoint is one of another run.
            VerificationError: the result is not the model with other weights.
        """
        with self._stack:
            self.trainer.run(phases)
        model = self.student.trained()
        self._tell("comparing")
        other = first_difference(self.student.model, model, values=False)
        if other:
            raise VerificationError(f"{model.name}: training changed more than weights: {other}")
        return TrainedModel(self._report(model), self.devices.rank == 0, compiled=model)

    def _report(self, result: Model) -> dict[str, Any]:
        original, before, validation = self._original, self.student.model, self._validation
        weights = {name: weight for name, weight in self.module.weights().items() if weight.dim() > 1}
        return {
            "model": before.name,
            "teacher": None if original.teacher is None else original.model.name,
            "loss": self.options.loss,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.trainer.state.epochs],
            "steps_per_epoch": self.data.steps,
            "score": None if validation is None else validation.compare(original.model, before, result),
            "sparsity": masks.sparsity(weights),
            "notes": [ONLY_WEIGHTS],
            "device": str(self.devices.device),
            "processes": self.devices.world,
            "seconds": time.monotonic() - self._begun,
        }

    def _open_log(self, folder: str | Path | None) -> Callable[[Mapping[str, float], int], None] | None:
        """A function that writes numbers by name to a folder for TensorBoard; it is open until the training ends.

        Raises:
            OptionError: TensorBoard is not installed.
        """
        if folder is None or self.devices.rank:
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
