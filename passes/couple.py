"""Find the coupling groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnxprune.axes.coupling import couple
from onnxprune.passes.analysis import Analysis, Normalized
from onnxprune.passes.base import Pass

__all__ = ["Couple"]


@dataclass(frozen=True)
class Couple(Pass):
    """Find what may be pruned, and why the rest may not."""

    protect: tuple[str, ...] = ()
    """Globs over node and tensor names that stay as they are."""
    allow_inexact: bool = False
    """Offer groups that a normalisation or statistic runs over."""
    only: tuple[str, ...] = ()
    """Kinds of groups to offer: channels, heads, mlp, residual; empty for all."""

    def run(self, normal: Normalized, frozen: Mapping[str, str] = MappingProxyType({})) -> Analysis:
        """The analysis of a model.

        Args:
            normal: the model.
            frozen: groups that must stay, by id, with the reason.
        """
        coupling = couple(
            normal.model,
            normal.shapes,
            protect=self.protect,
            frozen=frozen,
            allow_inexact=self.allow_inexact,
            only=self.only,
        )
        return Analysis(normal.model, normal.shapes, normal.source, coupling)
