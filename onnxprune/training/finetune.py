"""Fine-tuning: a model is trained with the weights that it has."""

from __future__ import annotations

from onnxprune.data.samples import SamplesLike
from onnxprune.ir.model import ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.options.train import Training
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.judging import check_gates, judged
from onnxprune.training.phase import Phase
from onnxprune.training.progress import Tell
from onnxprune.training.session import TrainedModel, TrainingSession

__all__ = ["finetune"]


@watched()
def finetune(
    source: ModelSource, inputs: TrainingInputs | SamplesLike, options: Training | None = None, *, progress: Tell | None = None
) -> TrainedModel:
    """Train a model with the weights that it has; zeros stay zeros.

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        inputs: samples, teacher and files; or samples alone, in any form of `open_samples`.
        options: of the training.
        progress: called with the progress.

    Raises:
        ModelError: a model cannot be read, or cannot be computed in PyTorch.
        OptionError: samples do not fit, options do not go together, or a gate has no samples.
        QualityError: the result is not as good as a gate asks.
        RequirementError: training diverged.
    """
    inputs = TrainingInputs.of(inputs)
    check_gates(inputs)
    options = options or Training()
    session = TrainingSession(source, inputs, options, tell=progress)
    trained = session.train([Phase("finetune", session.options.epochs, start=True, sized=True)])
    return judged(trained, source, inputs, "finetune", options)
