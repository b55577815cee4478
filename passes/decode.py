"""Weights as they were before they were encoded."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass
from onnxprune.sparse.encoding.recognize import decode_weights

__all__ = ["Decode"]


@dataclass(frozen=True)
class Decode(Pass):
    """Weights are constants again, the nodes that made them are gone; bit for bit what a runtime computes.

    Sparse tensors become dense when a model is read.
    """

    def run(self, model: Model) -> Model:
        """The decoded model; ``model`` itself where nothing is encoded."""
        decoded = model.copy()
        return decoded if decode_weights(decoded) else model
