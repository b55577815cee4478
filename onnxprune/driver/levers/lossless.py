"""What can go without loss."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from onnxprune.driver.levers.base import Lever, Made, Step
from onnxprune.driver.lossless import Exact, remove
from onnxprune.errors import TargetError
from onnxprune.options.prune import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lossless"]

_CHOICE = "lossless"


class Lossless(Lever):
    """Dead, constant and duplicated channels go; the result equals the original."""

    name: ClassVar[str] = "lossless"
    exact: ClassVar[bool] = True

    def choices(self) -> Sequence[str]:
        return (_CHOICE,) if self._exact else ()

    def carry_out(self, made: Made, choice: str) -> Made:
        if self._exact is None:
            raise TargetError(f"{made.model.name}: nothing can go without loss")
        pruned = self._exact.pruned
        return made.then(Step(self.name, choice, {"removed": pruned.model}, pruned.check))

    @cached_property
    def _exact(self) -> Exact | None:
        """What went; ``None`` if nothing can."""
        ground = self.ground
        recipe = Recipe(lossless=True, protect=ground.recipe.protect, seed=ground.recipe.seed)
        try:
            with ground.stages("lossless", "looking for what is dead, constant or duplicated"):
                return remove(ground.original, recipe)
        except TargetError as error:
            self.notes.append(str(error))
            return None
