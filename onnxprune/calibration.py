"""Calibration samples as the batches that statistics, sensitivity and repair go through."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.calibrate import Samples
from onnxprune.precision import feeds_as_float32

if TYPE_CHECKING:
    from onnxprune.shapes import Shapes
    from onnxprune.weights import Array

__all__ = ["Calibration", "Feeds"]

MEMORY = 1 << 28
"""Bytes of activations of one batch, about, that are held at the same time."""
LARGEST = 64
"""Samples in a batch, at most."""
_FOURTH = 4


class Feeds:
    """Batches of inputs; gone through as often as needed, never held together."""

    def __init__(self, samples: Samples, size: int, *, float32: bool = False, held: bool | None = None) -> None:
        """All batches, in float32 if that is asked for; with ``held``, each fourth one, or the others."""
        self._samples, self._size, self._float32, self._held = samples, size, float32, held
        self._count: int | None = None

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        for number, batch in enumerate(self._samples.batches(self._size)):
            if self._held is None or (number % _FOURTH == _FOURTH - 1) == self._held:
                yield feeds_as_float32(batch.feeds) if self._float32 else batch.feeds

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count


@dataclass(frozen=True, slots=True)
class Calibration:
    """Attributes:
    every: all batches: what the final repair fits.
    fit: three of four: what choices are fitted on.
    held: the fourth: what choices are judged by. The same as ``fit`` where there are fewer than four batches.
    size: samples in a batch; 1 where the model takes a fixed number of them at a time.
    """

    every: Feeds
    fit: Feeds
    held: Feeds
    size: int

    @classmethod
    def of(cls, samples: Samples, shapes: Shapes, *, float32: bool = False) -> Calibration:
        """Batches small enough that the activations of one fit into memory, and at least eight where the samples allow it.

        Raises:
            OptionError: as `Samples.batches`.
        """
        elements = sum(math.prod(shape) for shape in shapes.shapes.values() if shape is not None) / max(shapes.batch, 1)
        size = max(1, min(LARGEST, int(MEMORY / max(4 * elements, 1))))
        if samples.count is not None:
            size = max(1, min(size, samples.count // (2 * _FOURTH)))
        size = size if shapes.batch > 1 else 1
        every = Feeds(samples, size, float32=float32)
        if len(every) < _FOURTH:
            return cls(every, every, every, size)
        fit, held = (Feeds(samples, size, float32=float32, held=held) for held in (False, True))
        return cls(every, fit, held, size)
