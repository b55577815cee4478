"""Calibration samples as the batches that statistics, sensitivity and repair go through."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.data.samples import Samples
from onnxprune.ir.precision import feeds_as_float32
from onnxprune.runtime.memory import batch_bytes

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array
    from onnxprune.shapes.probes import Shapes

__all__ = ["LABELS", "Batches", "Calibration", "CalibrationFeeds", "unpadded"]

LARGEST_BATCH = 64
"""Largest number of samples in a batch."""
_FOURTH = 4
ATTENTION_MASK = "attention_mask"
LABELS = "labels of the batch"
"""The name of labels among the inputs; no input can have a name with spaces like this one."""
_TOKENS = 8
"""Lengths of sequences that go together differ by less."""


Batches = Iterable[Mapping[str, "Array"]]
"""Batches of inputs that one can iterate over many times."""


class CalibrationFeeds:
    """Batches of inputs; one can iterate over them many times, and only one is in memory at a time."""

    def __init__(
        self,
        samples: Samples,
        size: int,
        *,
        float32: bool = False,
        held: bool | None = None,
        open_length: Collection[str] = (),
    ) -> None:
        """All batches, in float32 if that is asked for; with ``held``, each fourth one, or the others.

        Padding is cut off inputs named in ``open_length``, see `unpadded`.
        """
        self._samples, self._size, self._float32, self._held = samples, size, float32, held
        self._open = open_length
        self._count: int | None = None

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        for feeds in self.labelled():
            yield {name: array for name, array in feeds.items() if name != LABELS}

    def labelled(self) -> Iterator[Mapping[str, Array]]:
        """The batches with their labels, where they have any, by the name `LABELS`."""
        for number, batch in enumerate(self._samples.batches(self._size)):
            if self._held is None or (number % _FOURTH == _FOURTH - 1) == self._held:
                labels = {} if batch.labels is None else {LABELS: batch.labels}
                for feeds in unpadded({**batch.feeds, **labels}, self._open):
                    yield feeds_as_float32(feeds) if self._float32 else feeds

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count


def unpadded(feeds: Mapping[str, Array], names: Collection[str]) -> Iterator[Mapping[str, Array]]:
    """A batch of sequences in parts of about one length, without the padding behind them.

    The outputs of a model for padding are arbitrary and nobody reads them, but they would count in every fit over rows. The
    mask is the input `attention_mask` [samples, tokens]; ``names`` are the inputs whose second axis is as long, and may be
    shorter. A batch without such a mask, or padded elsewhere than at the end, stays as it is.
    """
    mask = feeds.get(ATTENTION_MASK)
    if mask is None or ATTENTION_MASK not in names or mask.ndim != 2 or not mask.size:
        return iter([feeds])
    tokens = mask.shape[1]
    lengths = tokens - np.argmax(mask[:, ::-1] != 0, 1)
    if not (mask[:, 0] != 0).all():
        return iter([feeds])
    steps = np.minimum(-(-lengths // _TOKENS) * _TOKENS, tokens)
    cut = [name for name in names if name in feeds and feeds[name].ndim > 1 and feeds[name].shape[1] == tokens]

    def part(length: int) -> Mapping[str, Array]:
        rows = np.flatnonzero(steps == length)
        whole = {name: array[rows] if array.ndim and len(array) == len(mask) else array for name, array in feeds.items()}
        stop = int(lengths[rows].max())
        return whole | {name: np.ascontiguousarray(whole[name][:, :stop]) for name in cut}

    return map(part, np.unique(steps).tolist())


@dataclass(frozen=True, slots=True)
class Calibration:
    """Attributes:
    every: all batches: what the final repair fits.
    fit: three of four: what choices are fitted on.
    held: the fourth: what choices are judged by. The same as ``fit`` where there are fewer than four batches.
    size: samples in a batch; 1 where the model takes a fixed number of them at a time.
    """

    every: CalibrationFeeds
    fit: CalibrationFeeds
    held: CalibrationFeeds
    size: int

    @classmethod
    def of(cls, samples: Samples, shapes: Shapes, *, float32: bool = False) -> Calibration:
        """Batches small enough that the activations of one fit into memory, and at least eight where the samples allow it.

        Raises:
            OptionError: as `Samples.batches`.
        """
        elements = sum(math.prod(shape) for shape in shapes.shapes.values() if shape is not None) / max(shapes.batch, 1)
        size = max(1, min(LARGEST_BATCH, int(batch_bytes() / max(4 * elements, 1))))
        if samples.count is not None:
            size = max(1, min(size, samples.count // (2 * _FOURTH)))
        size = size if shapes.batch > 1 else 1
        moving = {name for name, axes in shapes.dynamic.items() if len(axes) > 1 and axes[0] and axes[1]}
        every = CalibrationFeeds(samples, size, float32=float32, open_length=moving)
        if len(every) < _FOURTH:
            return cls(every, every, every, size)
        fit, held = (CalibrationFeeds(samples, size, float32=float32, held=held, open_length=moving) for held in (False, True))
        return cls(every, fit, held, size)
