"""What other devices must time, so that models can be planned for them here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.data.samples import sized
from onnxprune.driver.named import check_protected
from onnxprune.driver.progress import Stages
from onnxprune.driver.prune import compiling, samples_of
from onnxprune.ir.history import recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.options.targets import Target

if TYPE_CHECKING:
    from onnxprune.options.prune import Recipe
    from onnxprune.passes.base import Progress

__all__ = ["TimedModels", "timed_models"]

_DECIDING = frozenset({"align", "protect", "only", "allow_inexact", "lossless", "calib", "shape"})
"""Options that decide which models are timed."""


@dataclass(frozen=True, slots=True)
class TimedModels:
    """A file for a device.

    Attributes:
        content: of the file.
        layers: how many models of layers there are in it.
        wholes: how many of the whole model.
    """

    content: bytes
    layers: int
    wholes: int


def timed_models(source: ModelSource, recipe: Recipe, *, progress: Progress | None = None) -> TimedModels:
    """The models that a device must time, so that `onnxprune.prune` can plan any latency of this one for it.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``.
        recipe: what may be pruned, and alignment; samples say open sizes.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read, or its weights are not finite floats.
        OptionError: sizes or samples do not fit the inputs, or a glob names nothing.
        TargetError: the model has no group that can be pruned.
    """
    from onnxprune.latency.worklist import shapes_file

    recipe = dataclasses.replace(recipe, target=Target("latency", 0.5))
    original = Model.of(source, recipe.shape)
    check_protected(recipe.protect, original)
    original = sized(original, samples_of(recipe, original))
    layers, wholes = compiling(recipe, original, None, Stages(progress))[0].worklist()
    options = recipe_text("latency shapes", recipe, only=_DECIDING)
    return TimedModels(shapes_file(original.name, layers, wholes, options), len(layers), len(wholes))
