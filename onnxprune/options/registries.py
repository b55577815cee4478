"""The registries that options name: which modules, far above, hold their entries, and how other packages add to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxprune.options.registry import Registry, load

__all__ = ["ALLOCATIONS", "CRITERIA", "ENCODINGS", "METHODS", "PATTERNS", "TRAININGS", "TrainingMethod"]

CRITERIA = Registry[Callable[..., Any]](
    "criterion",
    homes=("onnxprune.pruning.criteria", "onnxprune.pruning.data_criteria", "onnxprune.pruning.gradient_criteria"),
    group="onnxprune.criteria",
)
"""How `prune` ranks channels: functions of a `GroupView`; those that need samples of a `Problem`; those that need PyTorch of a
module, samples and a seed (see `onnxprune.torch.importance`)."""
METHODS = Registry[Callable[..., Any]]("method", homes=("onnxprune.sparse.selection",))
"""How `sparsify` chooses weights; criteria that need PyTorch are among them."""
ALLOCATIONS = Registry[Callable[..., Any]]("allocation", homes=("onnxprune.sparse.allocation",))
"""How a sparsity is shared out among layers."""
PATTERNS = Registry[Callable[[str], Any]]("pattern", homes=("onnxprune.sparse.patterns",), group="onnxprune.patterns")
"""Which weights may stay: functions that read a text and give a `Pattern`, or ``None`` if it is none of theirs."""
ENCODINGS = Registry[Any]("encoding", homes=("onnxprune.sparse.encoding.choose",), group="onnxprune.encodings")
"""How weights with zeros are stored: a `Family` of schemes."""


@dataclass(frozen=True, slots=True)
class TrainingMethod:
    """A method of `train`, and what its paper does where a user does not say.

    Attributes:
        function: where its phases are, as ``package.module:name``: its module needs PyTorch.
        allocation: a name of `ALLOCATIONS`.
        start: ``given`` or ``random``.
        rate: whether weights that are given are trained with the rate of ``retraining`` or that of a ``training`` from the start.
        surgical: whether it cuts channels between trainings, with repair; the others mask them while they train.
        weights: whether it also makes weights sparse.
    """

    function: str
    allocation: str
    start: str = "given"
    rate: str = "retraining"
    surgical: bool = False
    weights: bool = True

    def phases(self, run: Any) -> Any:
        """The phases of a run, see `onnxprune.training.recipes.run.RecipeRun`."""
        return load(self.function)(run)


TRAININGS = Registry[TrainingMethod]("method", homes=("onnxprune.training.recipes",))
"""The methods of `train`."""
