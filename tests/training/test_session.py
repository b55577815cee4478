"""A session ends with the model that its trainer ended with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxprune.options.train import Training
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.phase import Phase
from onnxprune.training.session import TrainingSession
from trainable import images, sparse

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize("judged", [False, True])
def test_at_the_end_statistics_are_those_of_the_weights(*, judged: bool) -> None:
    evaluation = {"x": images()["x"]} if judged else None
    inputs = TrainingInputs(images(), DIGITS, evaluation)
    session = TrainingSession(sparse(0.9), inputs, Training(lr=0.01, batch=16, device="cpu", restore_norms="yes", metric="mse"))
    session.trainer.run([Phase("finetune", 2)])
    ended = {norm.mean: session.module.value_of(norm.mean).clone() for norm in session.student.norms}
    session.student.update_statistics()
    for name, mean in ended.items():
        torch.testing.assert_close(session.module.value_of(name), mean)
