"""The handwritten digits on which the small model is trained and judged.

Source: the UCI "Optical Recognition of Handwritten Digits" test set (Alpaydin and Kaynak, 1998) as bundled with
scikit-learn: 1797 images of 8x8 pixels, ten classes. Nothing is downloaded. The split is by image and not by
writer, so the accuracies are higher than those on unseen writers would be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from sklearn.datasets import load_digits

Images = npt.NDArray[np.float32]
"""Images [n, 1, 8, 8], grey level 0 (paper) to 1 (full ink)."""

Labels = npt.NDArray[np.int64]
"""Class indices [n], the digit 0 to 9."""

_SEED = 0
_TEST_STRIDE = 3
_CALIB_STRIDE = 5
_MAX_INK = 16.0  # scikit-learn's images count the inked pixels, 0..16, of a 4x4 cell


class Digits(NamedTuple):
    """A fixed split: 1198 training and 599 test images, every class in the same proportion in both.

    `calib_x` (240 images) is a part of `train_x`, used where unlabelled samples are needed; it shares nothing with the
    test images.
    """

    train_x: Images
    train_y: Labels
    calib_x: Images
    test_x: Images
    test_y: Labels


def load() -> Digits:
    """Load the digits; the same split, in the same order, on every call and machine."""
    bunch = load_digits()
    images = (bunch.images[:, None] / _MAX_INK).astype(np.float32)
    labels = bunch.target.astype(np.int64)

    # RandomState's stream is frozen by numpy's compatibility policy; default_rng's is not.
    rng = np.random.RandomState(_SEED)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # grouped by class, so that a stride stratifies
    is_test = np.arange(len(order)) % _TEST_STRIDE == 0
    train, test = order[~is_test], order[is_test]
    calib = train[::_CALIB_STRIDE]
    train, test, calib = rng.permutation(train), rng.permutation(test), rng.permutation(calib)
    return Digits(images[train], labels[train], images[calib], images[test], labels[test])


Batches = Iterator[tuple[dict[str, Images], Labels]]
"""Batches with labels, for recipe files, which name the function: `digits:training`."""


def training() -> Batches:
    """The training images, with labels."""
    yield {"image": load().train_x}, load().train_y


def testing() -> Batches:
    """The test images, with labels."""
    yield {"image": load().test_x}, load().test_y


def calibration() -> Iterator[dict[str, Images]]:
    """Training images without labels."""
    yield {"image": load().calib_x}


def accuracy(model: ort.InferenceSession | str | os.PathLike[str] | bytes, x: Images, y: Labels, batch: int = 256) -> float:
    """Top-1 accuracy, 0 to 1, of a classifier with one input [n, 1, 8, 8] and first output [n, 10] of class scores.

    `model` is a session, the path of an ONNX file, or a serialized ONNX model. The batch axis must be dynamic:
    the images run `batch` at a time, and the last run is usually smaller.
    """
    if not isinstance(model, ort.InferenceSession):
        source = model if isinstance(model, bytes) else os.fspath(model)
        model = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    name = model.get_inputs()[0].name
    hits = 0
    for start in range(0, len(x), batch):
        scores = np.asarray(model.run(None, {name: x[start : start + batch]})[0])
        hits += int((scores.argmax(axis=1) == y[start : start + batch]).sum())
    return hits / len(x)
