"""Channels, heads and hidden units: how much of them remains."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from onnxprune.driver.compiler import Compiler
from onnxprune.driver.layer_types import IN_FLOATS, LayerTypes
from onnxprune.driver.levers.base import GradedLever, Ground, Made, Mixture, Step
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.passes import PruneChannels

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Channels"]

_OF = " of "


class Channels(GradedLever):
    """Coupling groups are cut, by what each is measured to cost on the samples, and what reads them is repaired."""

    name: ClassVar[str] = "channels"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._compilers: dict[Mixture, Compiler] = {}

    def choices(self) -> Sequence[str]:
        compiler = self._compiler(Made(Mixture(), self.ground.original))
        if compiler.has_groups:
            return (self.at(0.5, Mixture()),)
        self.notes.append(f"{self.ground.original.name}: has no group that can be pruned; inspect says why")
        return ()

    def at(self, share: float, beside: Mixture) -> str:
        """Of a latency, the share of what the layers take in the types that they will compute in."""
        if self.ground.recipe.by_size:
            return str(Target("size", share))
        target = str(Target("latency", share))
        types = next((choice for _, choice in beside.choices if choice in self.ground.types), "")
        return f"{target}{_OF}{types}" if types else target

    def carry_out(self, made: Made, choice: str) -> Made:
        pruned = self._compiler(made).build(*self._read(choice))
        cut = PruneChannels().run(pruned.analysis, pruned.plan)
        left = tuple({"node": name, "op": "group", "why": why} for name, why in pruned.frozen.items())
        return made.then(Step(self.name, choice, {"cut": cut, "repaired": pruned.model}, pruned.check, left))

    def draft(self, made: Made, choice: str) -> Made:
        """The cut alone, without proof and repair."""
        _, cut = self._compiler(made).draft(*self._read(choice))
        return made.then(Step(self.name, choice, {"cut": cut}))

    def _read(self, choice: str) -> tuple[Target, LayerTypes]:
        """The target of a choice, and what layers will compute in."""
        target, _, types = choice.partition(_OF)
        return Target.parse(target), self.ground.types[types] if types else IN_FLOATS

    def _compiler(self, made: Made) -> Compiler:
        """The compiler of a model that levers before this one made."""
        if made.mixture not in self._compilers:
            recipe = Recipe(protect=self.ground.recipe.protect, seed=self.ground.recipe.seed)
            self._compilers[made.mixture] = Compiler(made.model, recipe, self.ground.samples, self.ground.stages)
        return self._compilers[made.mixture]
