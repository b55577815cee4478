"""Inputs that have defaults become constants, which every other command may then change."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.driver.costs import before_and_after, cost_of
from onnxprune.driver.judgement import Judgement, Jury
from onnxprune.driver.proof import demand, stored
from onnxprune.driver.result import ModelResult
from onnxprune.ir.history import begin, made, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.options.release import ReleaseRecipe
from onnxprune.passes import Release
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.pruning.cost import Cost

__all__ = ["Released", "release"]


@dataclass(frozen=True, repr=False)
class Released(ModelResult):
    """A model with fewer inputs.

    Attributes:
        inputs: those that are gone.
        verification: the proof that the model computes what the file does for callers that do not override them.
        judgement: how good the model is beside the original, whose outputs it has.
        before: MACs, parameters and bytes of the file; ``None`` where it cannot be analysed.
        after: likewise of the result: only bytes differ.
    """

    inputs: tuple[str, ...]
    verification: Check
    judgement: Judgement
    before: Cost | None = None
    after: Cost | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        found = {"model": self.compiled.name, "released": list(self.inputs), "verification": asdict(self.verification)}
        costs = {name: cost and asdict(cost) for name, cost in (("before", self.before), ("after", self.after))}
        return {**found, **costs, "judgement": self.judgement.to_dict(), **made(self.compiled)}


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
        QualityError: it is not as good as a gate asks.
        VerificationError: an output is not tested that must be.
    """
    recipe = recipe or ReleaseRecipe()
    original = begin(Model.of(source, recipe.shape), source, recipe_text("release", recipe))
    jury = Jury.of(recipe.gates, original, None)
    released = Release(recipe.inputs).run(original)
    check = stored(released, original, "released", exact=True)
    if recipe.require_proof:
        demand(check, original.name)
    judged = jury.judge(released, compare=False, exact=True)
    gone = tuple(sorted(original.overridable - released.overridable))
    return Released(gone, check, judged, **before_and_after(cost_of(original), released), compiled=released)
