"""Inputs that have defaults become constants, which every other command may then change."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.driver.proof import demand, stored
from onnxprune.driver.result import ModelResult
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.options.release import ReleaseRecipe
from onnxprune.passes import Release
from onnxprune.verify.verdicts import Check

__all__ = ["Released", "release"]


@dataclass(frozen=True)
class Released(ModelResult):
    """A model with fewer inputs.

    Attributes:
        inputs: those that are gone.
        verification: the proof that the model computes what the file does for callers that do not override them.
    """

    inputs: tuple[str, ...]
    verification: Check

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"model": self.compiled.name, "released": list(self.inputs), "verification": asdict(self.verification)}


@watched()
def release(source: ModelSource, recipe: ReleaseRecipe | None = None) -> Released:
    """Make constants of inputs that have defaults (initializers that are inputs, too), as old exporters write all weights.

    A default is a part of the interface: `prune` leaves it whole, `quantize` leaves what reads it in floating point, `encode`
    stores it as it is. Where nobody overrides it, this is the way out.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: which of them.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: no input has a default, or none is called so.
        VerificationError: an output is not tested that must be.
    """
    recipe = recipe or ReleaseRecipe()
    original = Model.of(source, recipe.shape)
    released = Release(recipe.inputs).run(original)
    check = stored(released, original, "released", exact=True)
    if recipe.require_proof:
        demand(check, original.name)
    return Released(tuple(sorted(original.overridable - released.overridable)), check, compiled=released)
