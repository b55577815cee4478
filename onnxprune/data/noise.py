"""Noise with the statistics that all natural images share, for networks whose images are not at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["coloured"]

_CHANNELS = (1, 3)
_SHARED = 2.0
"""Amplitude of what the channels have in common, over that of what each has for itself."""


def coloured(noise: Array) -> Array:
    """White noise made like natural images, where it has the shape of some; other arrays as they are.

    The amplitude of natural images falls with spatial frequency as its inverse, whatever they show, and their channels are mostly
    brightness (Field, "Relations between the statistics of natural images and the response properties of cortical cells", 1987).

    Args:
        noise: white. [samples, channels, height, width] or [samples, height, width, channels], with 1 or 3 channels.

    Returns:
        Of the same shape and type; the variance of each image is 1.
    """
    if noise.ndim != 4 or not np.issubdtype(noise.dtype, np.floating):
        return noise
    axis = next((axis for axis in (1, 3) if noise.shape[axis] in _CHANNELS), None)
    if axis is None:
        return noise
    images = np.moveaxis(noise.astype(np.float64), axis, 1)
    images = images + _SHARED * images.sum(1, keepdims=True) / np.sqrt(images.shape[1])
    height, width = images.shape[2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1 / max(height, width)  # the mean varies as the lowest frequency does
    images = np.fft.irfft2(np.fft.rfft2(images) / frequency, s=(height, width))
    images /= images.std((1, 2, 3), keepdims=True)
    return np.moveaxis(images, 1, axis).astype(noise.dtype)
