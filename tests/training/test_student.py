"""A student computes what its model does, and has normalisations of its own where they help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxprune.ir.model import Model
from onnxprune.options.train import Training
from onnxprune.torch import to_module
from onnxprune.training.devices import find_devices
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.student import Student
from trainable import images, sparse

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize(
    ("how", "share", "sparse_later", "restored"),
    [
        ("auto", 0, False, False),
        ("auto", 0.7, False, True),
        ("auto", 0, True, True),
        ("yes", 0, False, True),
        ("no", 0.7, True, False),
    ],
)
def test_normalisation_comes_back_where_weights_are_zero_or_shall_be(
    how: str, share: float, sparse_later: bool, restored: bool
) -> None:
    start = sparse(share) if share else DIGITS
    model, devices = Model.of(start), find_devices("cpu")
    data = TrainingInputs(images()).open_data(model, Training(), devices)
    student = Student.of(model, data, devices, restore=how, sparse=sparse_later)
    assert bool(student.norms) is restored


def test_an_untrained_student_becomes_the_model_again() -> None:
    model, devices = Model.of(DIGITS), find_devices("cpu")
    data = TrainingInputs(images()).open_data(model, Training(), devices)
    student = Student.of(model, data, devices, restore="yes", sparse=False)
    assert student.added
    x = torch.from_numpy(images(4)["x"])
    with torch.no_grad():
        expected = to_module(model)(x)
        torch.testing.assert_close(student.module.eval()(x), expected, rtol=1e-4, atol=1e-4)
        trained = student.trained()
        torch.testing.assert_close(to_module(trained)(x), expected, rtol=1e-4, atol=1e-4)
    assert trained.proto == model.proto
    assert all(np.isfinite(weight.array()).all() for weight in trained.weights.values() if weight.is_float)
