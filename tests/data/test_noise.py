"""Noise like natural images: its spectrum, and what has no business with it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.noise import coloured


def white(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", [(40, 3, 32, 24), (40, 32, 24, 3), (40, 1, 33, 24)])
def test_images_have_one_variance_and_amplitudes_that_fall_with_frequency(shape: tuple[int, ...]) -> None:
    images = coloured(white(*shape))
    assert images.shape == shape
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.std((1, 2, 3)), 1, rtol=1e-3)
    axis = 1 if shape[1] < 4 else 3
    spectrum = np.abs(np.fft.fft2(np.moveaxis(images, axis, 1))).mean((0, 1))
    for at in (1, 2, 4):  # twice the frequency, half the amplitude
        assert spectrum[2 * at, 0] / spectrum[at, 0] == pytest.approx(0.5, rel=0.25)


def test_channels_are_mostly_brightness() -> None:
    red, green, blue = coloured(white(40, 3, 32, 32)).transpose(1, 0, 2, 3).reshape(3, -1)
    assert 0.7 < np.corrcoef(red, green)[0, 1] < 0.95
    assert 0.7 < np.corrcoef(green, blue)[0, 1] < 0.95


@pytest.mark.parametrize("shape", [(4, 16), (2, 3, 8), (2, 5, 8, 8), (2, 3, 4, 8, 8)])
def test_what_is_no_image_stays(shape: tuple[int, ...]) -> None:
    noise = white(*shape)
    assert coloured(noise) is noise


def test_integers_stay() -> None:
    whole = np.ones((2, 3, 8, 8), np.int64)
    assert coloured(whole) is whole
