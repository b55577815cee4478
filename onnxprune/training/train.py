"""Training that prunes, from a file to a file: weights become zero, or with a target channels go."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.ir.model import Source
from onnxprune.options.train import Sparse, Training
from onnxprune.training import channels, weights
from onnxprune.training.session import Material, Tuned

__all__ = ["train"]


def train(
    source: Source,
    material: Material,
    recipe: Sparse,
    options: Training | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Make a model sparse (`onnxprune.training.weights`), or with a target smaller (`onnxprune.training.channels`).

    Args:
        source: a path, a ``ModelProto``, bytes; it is not changed.
        material: what to train with.
        recipe: how it is pruned.
        options: how it is trained.
        progress: told how it goes.

    Raises:
        ModelError: a model cannot be read, or not be computed in PyTorch.
        OptionError: samples do not fit, or options do not go together.
        TargetError: the target cannot be reached; says what is reachable.
        RequirementError: training diverged.
    """
    method = channels.train if recipe.target else weights.train
    return method(source, material, recipe, options, progress=progress)
