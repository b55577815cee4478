"""A session ends with the model that its trainer ended with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.options.train import Training
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.phase import Phase
from onnxprune.training.session import ONLY_WEIGHTS, TrainingSession
from onnxprune.training.student import Student
from trainable import images, perceptron, sparse

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


def test_a_result_that_is_more_than_the_model_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = TrainingInputs({"x": images()["x"].reshape(-1, 6), "label": images()["label"].repeat(64 // 6 + 1)[:512] % 3})
    options = Training(epochs=1, device="cpu", loss="cross_entropy")
    right = Student.trained

    def wrong(self: Student) -> Model:
        model = right(self)
        model.graph.node[1].op_type = "Sigmoid"
        return model

    assert TrainingSession(perceptron(8), inputs, options).train([Phase("finetune", 1)]).report["notes"] == [ONLY_WEIGHTS]
    monkeypatch.setattr(Student, "trained", wrong)
    with pytest.raises(VerificationError, match=r"training changed more than weights: node 'r' \(Sigmoid\) is not the one"):
        TrainingSession(perceptron(8), inputs, options).train([Phase("finetune", 1)])
