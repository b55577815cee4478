"""What a model costs, for commands that change how weights are stored or what they are, and not what is multiplied."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OnnxPruneError
from onnxprune.ir.files import written_bytes
from onnxprune.passes import Couple, Normalize

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.pruning.cost import Cost

__all__ = ["before_and_after", "cost_of"]


def cost_of(model: Model) -> Cost | None:
    """MACs, parameters and bytes of a model; ``None`` where it cannot be analysed, which is no reason not to write it."""
    try:
        return Couple().run(Normalize().run(model)).costs.original()
    except OnnxPruneError:
        return None


def before_and_after(cost: Cost | None, written: Model) -> dict[str, Any]:
    """What a report says of a model that multiplies as much as the one that it was made of, zeros included: bytes differ."""
    return {"before": cost, "after": cost and dataclasses.replace(cost, size=written_bytes(written))}
