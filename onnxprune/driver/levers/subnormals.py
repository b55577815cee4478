"""Weights that are so small that processors are slow with them, and no output shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from onnxprune.driver.levers.base import Lever, Made, Step
from onnxprune.driver.proof import held
from onnxprune.passes import FlushSubnormals
from onnxprune.verify.law import unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Subnormals"]

_CHOICE = "no subnormal weights"


class Subnormals(Lever):
    """Subnormal weights become zero; the result equals the original."""

    name: ClassVar[str] = "subnormals"
    exact: ClassVar[bool] = True

    def choices(self) -> Sequence[str]:
        original = self.ground.original
        return (_CHOICE,) if FlushSubnormals().run(original) is not original else ()

    def carry_out(self, made: Made, choice: str) -> Made:
        flushed = FlushSubnormals().run(made.model)
        check = held(unchanged(flushed, made.model, seed=self.ground.recipe.seed, rounded=True), made.model, _CHOICE)
        return made.then(Step(self.name, choice, {"flushed": flushed}, check))
