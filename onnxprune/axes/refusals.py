"""Refusals: the reasons why positions cannot be removed."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.axes.rules.registry import Reason

__all__ = ["Refusal", "Why"]


@dataclass(frozen=True, slots=True)
class Why:
    """The reason why a factor is fixed, and the node (or value) that gives it."""

    reason: Reason
    node: str
    text: str
    remedy: str = ""
    """Advice about this form of the node; empty for that of the reason."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Positions that cannot be removed, the node responsible and the reason.

    Attributes:
        value: the first constant that they run along.
        axis: which of its axes.
        size: number of positions; fewer than the axis has where it is a product or a sum.
        reason: the kind of reason.
        node: the node or value responsible.
        text: why, in a sentence.
        remedy: advice to the user; empty where nothing helps.
        axes: every axis of a constant that they run along, as ``value:axis``, in the names of the model as it was read.
    """

    value: str
    axis: int
    size: int
    reason: Reason
    node: str
    text: str
    remedy: str
    axes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Spell it as plans do."""
        return {
            "node": self.node,
            "axis": self.axes[0],
            "axes": list(self.axes),
            "size": self.size,
            "reason": self.reason.value,
            "text": self.text,
            "remedy": self.remedy,
        }
