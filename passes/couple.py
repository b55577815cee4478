"""Find the coupling groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.axes.coupling import couple
from onnxprune.ir.model import Model
from onnxprune.passes.base import Facts, Pass
from onnxprune.shapes.probes import probe


@dataclass(frozen=True)
class Couple(Pass):
    """Find what may be pruned, and why the rest may not."""

    name: ClassVar[str] = "couple"
    protect: tuple[str, ...] = ()
    """Globs over node and tensor names that stay as they are."""
    allow_inexact: bool = False
    """Offer groups that a normalisation or statistic runs over."""
    only: tuple[str, ...] = ()
    """Kinds of groups to offer: channels, heads, mlp, residual; empty for all."""

    def run(self, model: Model, facts: Facts) -> Model:
        facts.shapes = facts.shapes or probe(model)
        facts.coupling = couple(
            model,
            facts.shapes,
            protect=self.protect,
            frozen=facts.frozen,
            allow_inexact=self.allow_inexact,
            only=self.only,
        )
        return model
