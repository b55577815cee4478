"""Training that prunes, from a file to a file: weights become zero, or with a target channels go."""

from __future__ import annotations

from onnxprune.data.samples import SamplesLike
from onnxprune.driver.named import check_protected
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.options.train import Sparse, Training
from onnxprune.training.channels import train_channels
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.judging import check_gates, judged
from onnxprune.training.progress import Tell
from onnxprune.training.session import TrainedModel
from onnxprune.training.weights import train_weights

__all__ = ["train"]


@watched()
def train(
    source: ModelSource,
    inputs: TrainingInputs | SamplesLike,
    recipe: Sparse,
    options: Training | None = None,
    *,
    progress: Tell | None = None,
) -> TrainedModel:
    """Make a model sparse (`onnxprune.training.weights`), or with a target smaller (`onnxprune.training.channels`).

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        inputs: samples, teacher and files; or samples alone, in any form of `open_samples`.
        recipe: the method, and how much goes.
        options: of the training.
        progress: called with the progress.

    Raises:
        ModelError: a model cannot be read, or cannot be computed in PyTorch.
        OptionError: samples do not fit, options do not go together, or a gate has no samples.
        QualityError: the result is not as good as a gate asks.
        TargetError: the target cannot be reached; says what is reachable.
        RequirementError: training diverged.
    """
    inputs = TrainingInputs.of(inputs)
    check_gates(inputs)
    check_protected(recipe.protect, Model.of(source, (options or Training()).shape))
    method = train_channels if recipe.target else train_weights
    trained = method(source, inputs, recipe, options, progress=progress)
    return judged(trained, source, inputs, "train", recipe, options or Training())
