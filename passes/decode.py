"""Weights as they were before they were encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.ir.model import Model
from onnxprune.passes.base import Facts, Pass
from onnxprune.sparse.encoding.recognize import decode

__all__ = ["Decode"]


@dataclass(frozen=True)
class Decode(Pass):
    """Weights are constants again, the nodes that made them are gone; bit for bit what a runtime computes.

    Sparse tensors become dense when a model is read.
    """

    name: ClassVar[str] = "decode"

    def run(self, model: Model, facts: Facts) -> Model:
        decoded = model.copy()
        return decoded if decode(decoded) else model
