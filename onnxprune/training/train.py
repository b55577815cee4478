"""Training that prunes, from a file to a file: weights become zero, or with a target channels go."""

from __future__ import annotations

from onnxprune.ir.model import ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.options.train import Sparse, Training
from onnxprune.training.channels import train_channels
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.progress import Tell
from onnxprune.training.session import TrainedModel
from onnxprune.training.weights import train_weights

__all__ = ["train"]


@watched()
def train(
    source: ModelSource,
    inputs: TrainingInputs,
    recipe: Sparse,
    options: Training | None = None,
    *,
    progress: Tell | None = None,
) -> TrainedModel:
    """Make a model sparse (`onnxprune.training.weights`), or with a target smaller (`onnxprune.training.channels`).

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        inputs: samples, teacher and files.
        recipe: the method, and how much goes.
        options: of the training.
        progress: called with the progress.

    Raises:
        ModelError: a model cannot be read, or cannot be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        TargetError: the target cannot be reached; says what is reachable.
        RequirementError: training diverged.
    """
    method = train_channels if recipe.target else train_weights
    return method(source, inputs, recipe, options, progress=progress)
