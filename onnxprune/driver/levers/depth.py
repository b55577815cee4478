"""Depth: how many of the branches that are terms of sums go, as blocks of residual networks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from onnxprune.driver.depth import Shortener
from onnxprune.driver.levers.base import GradedLever, Ground, Made, Mixture, Step
from onnxprune.driver.levers.layers import layer_times, layers_of
from onnxprune.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.passes.analysis import Analysis
    from onnxprune.pruning.branches import Branch

__all__ = ["Depth"]


class Depth(GradedLever):
    """Branches go, those first that lose least for what they save; the layers in front and behind make up for them.

    What a branch loses is measured with the layer in front fitted to output the sum; what it saves is the time of its layers.
    """

    name: ClassVar[str] = "depth"
    start: ClassVar[float] = 0.8
    coarse: ClassVar[bool] = True

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._shorteners: dict[Mixture, Shortener] = {}

    def choices(self) -> Sequence[str]:
        found = self._shortener(Made(Mixture(), self.ground.original)).branches
        return (_spelled(1, len(found)),) if found else ()

    def at(self, share: float, beside: Mixture) -> str:
        """As many branches as may go if this share remains, at least one."""
        ladder = self._shortener(Made(Mixture(), self.ground.original)).ladder
        return _spelled(max(sum(remains >= share for _, remains in ladder), 1), len(ladder))

    def carry_out(self, made: Made, choice: str) -> Made:
        found = self._shortener(made).build(self._count(made, choice))
        return made.then(Step(self.name, choice, {"cut": found.cut, "repaired": found.repaired}, found.check))

    def draft(self, made: Made, choice: str) -> Made:
        """The cut alone, without proof and repair."""
        return made.then(Step(self.name, choice, {"cut": self._shortener(made).draft(self._count(made, choice))}))

    def _count(self, made: Made, choice: str) -> int:
        count = int(choice.partition(" ")[0])
        if count > len(self._shortener(made).ladder):
            raise TargetError(f"{made.model.name}: has no {count} branches")
        return count

    def _shortener(self, made: Made) -> Shortener:
        """What shortens a model that levers before this one made."""
        if made.mixture not in self._shorteners:
            ground = self.ground
            saved = self._bytes if ground.recipe.by_size else self._time
            self._shorteners[made.mixture] = Shortener(
                made.model, ground.recipe.protect, ground.recipe.seed, ground.samples, ground.stages, saved
            )
        return self._shorteners[made.mixture]

    def _time(self, analysis: Analysis, branch: Branch) -> float:
        """The share of the original's time that the layers of a branch take."""
        nodes = [analysis.model.graph.node[place] for place in branch.nodes]
        names = {name for node in nodes for name in (node.name, *node.input) if name}
        times = self._times
        return sum(time for name, time in times.items() if name in names) / max(sum(times.values()), 1e-30)

    def _bytes(self, analysis: Analysis, branch: Branch) -> float:
        """The share of all weights that a branch reads."""
        weights = analysis.model.weights
        names = {name for place in branch.nodes for name in analysis.model.graph.node[place].input if name in weights}
        return sum(weights[name].nbytes for name in names) / max(analysis.model.nbytes, 1)

    @cached_property
    def _times(self) -> Mapping[str, float]:
        """What each layer of the original takes, in milliseconds, by its name."""
        original = self.ground.original
        with self.ground.stages("layers", "timing layers"):
            return layer_times(layers_of(original), self.ground.times(original))


def _spelled(count: int, whole: int) -> str:
    return f"{count} of {whole} branches out"
