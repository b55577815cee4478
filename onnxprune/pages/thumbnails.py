"""Small pictures of samples, for a page; needs Pillow."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data.samples import open_samples
from onnxprune.errors import OnnxPruneError
from onnxprune.ir.folders import model_in
from onnxprune.ir.model import Model

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["thumbnails"]

_WIDTH = 96
"""Pixels of the longer side, at most."""
_RANK = 3
_COLOURS = (1, 3)
"""Channels of a sample that is an image."""


def thumbnails(options: Mapping[str, Any], numbers: Collection[int]) -> dict[int, str]:
    """Samples as data URLs of PNG files, by their places in the source.

    What a model gets is normalised: the least value becomes black, the largest white. Samples that are no images have none, and
    neither have those of a function that may give others now.

    Args:
        options: of the command that compared a model with another one: ``model``, ``eval`` or ``calib``, ``preprocess``.
        numbers: places, counted from 0.
    """
    source = options.get("eval") or options.get("calib") or options.get("data")
    found: dict[int, str] = {}
    if numbers and source and options.get("model"):
        with suppress(OnnxPruneError, OSError, ImportError):  # a page without pictures tells the same
            for number, sample in _samples(options, str(source), numbers):
                if (picture := _picture(sample)) is not None:
                    found[number] = picture
    return found


def _samples(options: Mapping[str, Any], source: str, numbers: Collection[int]) -> Iterator[tuple[int, Array]]:
    """What the first input of a model gets, without the axis of samples."""
    inputs = Model.of(model_in(Path(str(options["model"])))).inputs
    samples = open_samples(source, inputs, preprocess=options.get("preprocess") or None)
    seen = 0
    for batch in () if samples.fresh else samples.batches():
        array = batch.feeds[inputs[0].name]
        yield from ((number, array[number - seen]) for number in numbers if 0 <= number - seen < batch.size)
        seen += batch.size
        if seen > max(numbers):
            return


def _picture(sample: Array) -> str | None:
    """A sample [channels, height, width] or [height, width, channels] as a data URL; ``None`` where it is no image."""
    from PIL import Image

    if sample.ndim != _RANK or not np.issubdtype(sample.dtype, np.number):
        return None
    if sample.shape[0] in _COLOURS:
        sample = np.moveaxis(sample, 0, -1)
    if sample.shape[-1] not in _COLOURS:
        return None
    values = sample.astype(np.float64)
    low, high = values.min(), values.max()
    bytes_ = np.round((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    image = Image.fromarray(bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_)
    image.thumbnail((_WIDTH, _WIDTH))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
