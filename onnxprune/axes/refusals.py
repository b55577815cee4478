"""Why positions cannot be removed."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.axes.rules.registry import Reason

__all__ = ["Refusal", "Why"]


@dataclass(frozen=True, slots=True)
class Why:
    """Why a factor is fixed: the node (or value) that says so."""

    reason: Reason
    node: str
    text: str
    remedy: str = ""
    """Where the form of a node has one of its own."""


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
        remedy: what a user can do about it; empty where nothing helps.
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
        """As a plan spells it."""
        return {
            "node": self.node,
            "axis": self.axes[0],
            "axes": list(self.axes),
            "size": self.size,
            "reason": self.reason.value,
            "text": self.text,
            "remedy": self.remedy,
        }
