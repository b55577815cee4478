"""A pattern of sparsity: ``--pattern taps``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.ir.weights import Array
from onnxprune.options.registries import PATTERNS
from onnxprune.sparse.patterns import Mask, Pattern


@dataclass(frozen=True)
class Taps(Pattern):
    """Each tap of a kernel goes for all channels and outputs together: 3 x 3 becomes a cross, or less."""

    def mask(self, scores: Array, keep: int) -> Mask:
        """The taps with the highest sums of scores."""
        taps = scores.shape[2]
        best = np.argsort(-scores.sum((0, 1, 3)), kind="stable")[: keep * taps // scores.size]
        kept: Mask = np.zeros(scores.shape, bool)
        kept[:, :, best] = True
        return kept

    def allows(self, kept: Mask) -> bool:
        """Say whether each tap is there for all or for none."""
        return bool((kept == kept[:1, :1, :, :1]).all())

    def most(self, shape: Sequence[int]) -> int:
        """Everything."""
        return int(np.prod(shape))

    def __str__(self) -> str:
        return "taps"


@PATTERNS.register()
def taps(text: str) -> Taps | None:
    """Whole taps of kernels, for all channels and outputs together."""
    return Taps() if text == "taps" else None
