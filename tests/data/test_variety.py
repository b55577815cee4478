"""Samples that show nothing are refused, and one that is far from all others is named."""

from __future__ import annotations

import numpy as np
import pytest

from data.test_batching import value
from onnxprune.data.samples import optional_samples
from onnxprune.errors import OptionError

X = value("x", "N", 3)


def test_samples_that_show_nothing_are_refused() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert optional_samples({"x": x}, [X], "").notice == ""  # type: ignore[union-attr]
    assert "one sample alone" in optional_samples({"x": x[1:2]}, [X], "").notice  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="all 4 samples are equal"):
        optional_samples({"x": np.repeat(x[1:2], 4, 0)}, [X], "")
    for same in (np.zeros((4, 3), np.float32), np.full((1, 3), 2, np.float32)):
        with pytest.raises(OptionError, match="every value of every sample is the same"):
            optional_samples({"x": same}, [X], "")


def test_values_whose_squares_vanish_are_refused() -> None:
    x = np.random.default_rng(0).random((8, 3), np.float32)
    with pytest.raises(OptionError, match="every value is below 1e-19, and its square is zero: scale the samples"):
        optional_samples({"x": x * np.float32(1e-30)}, [X], "")
    assert optional_samples({"x": x * np.float32(1e-15)}, [X], "").notice == ""  # type: ignore[union-attr]


def test_a_sample_that_is_far_larger_than_all_others_is_named() -> None:
    x = np.random.default_rng(0).random((40, 3), np.float32)
    x[33, 1] = 1e6
    notice = optional_samples({"x": x}, [X], "").notice  # type: ignore[union-attr]
    assert "sample 33 of 'x' has values up to 1e+06, all others at most" in notice
    x[20, 0] = 1e6
    assert optional_samples({"x": x}, [X], "").notice == ""  # type: ignore[union-attr]
