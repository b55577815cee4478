"""A short distillation: of a float model, and of an int8 one through its rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.training import distillation
from onnxprune.training.distillation import Distillation
from onnxprune.training.inputs import TrainingInputs
from optimizable import X, net

TEACHER = Model.of(net())


def silent(_: str) -> None:
    """Nobody is told."""


def shaken(model: Model) -> Model:
    """A model whose last layer lost much."""
    result = model.copy()
    weight = result.weights["w4"].array()
    result.weights["w4"] = Weight("w4", None, (weight * np.float32(0.5)).astype(np.float32))
    return result


@pytest.fixture(autouse=True)
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "_EPOCHS", 10)


def test_a_float_model_comes_closer_to_its_teacher() -> None:
    student = shaken(TEACHER)
    found = Distillation({"x": X}, seed=1)(student, TEACHER, silent)
    assert found.after < found.before
    assert found.choice == "distilled for 10 epochs"
    assert found.model.proto.graph == student.proto.graph
    assert found.model.weights.keys() == student.weights.keys()


def test_an_int8_model_is_trained_through_its_rounding_and_stays_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "_ROUNDED_RATE", 0.01)
    student = Model.of(onnxprune.quantize(shaken(TEACHER).to_proto(), samples={"x": X}, agreement=False).model)
    found = Distillation({"x": X}, seed=1)(student, TEACHER, silent)
    assert found.after < found.before
    assert found.choice == "distilled through rounding for 10 epochs"
    assert found.model.proto.graph == student.proto.graph
    kinds = {name: weight.dtype for name, weight in student.weights.items()}
    assert {name: weight.dtype for name, weight in found.model.weights.items()} == kinds


def test_what_chooses_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spied(*parts: Any) -> TrainingInputs:
        seen.append(parts)
        return TrainingInputs(*parts)

    monkeypatch.setattr("onnxprune.training.distillation.TrainingInputs", spied)
    Distillation({"x": X})(TEACHER, TEACHER, silent)
    ((learnt, teacher, held),) = seen
    rows = [np.concatenate([batch.feeds["x"] for batch in part.batches(16)]) for part in (learnt, held)]
    np.testing.assert_array_equal(rows[1], X[7::8])
    np.testing.assert_array_equal(rows[0], np.delete(X, np.s_[7::8], axis=0))
    assert teacher is TEACHER


def test_too_few_samples_and_models_that_cannot_be_trained_are_told_before() -> None:
    with pytest.raises(OptionError, match="has 8 samples; distillation needs 16 or more"):
        Distillation({"x": X[:8]}).check(TEACHER)
    Distillation({"x": X[:16]}).check(TEACHER)
    unknown = TEACHER.copy()
    unknown.proto.opset_import.add(domain="elsewhere", version=1)
    unknown.proto.graph.node[1].domain = "elsewhere"
    with pytest.raises(ModelError):
        Distillation({"x": X}).check(unknown)


def test_samples_without_a_known_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
            yield from ({"x": X[at : at + 8]} for at in range(0, 96, 8))

    found = Distillation(Endless())(shaken(TEACHER), TEACHER, silent)
    assert found.after < found.before
