"""The checkpoint of a run belongs to its options, models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxprune import OptionError
from onnxprune.ir.model import Model
from onnxprune.options.train import Training
from onnxprune.training.inputs import TrainingInputs
from trainable import perceptron


def test_another_device_is_the_same_run_and_anything_else_is_not(tmp_path: Path) -> None:
    inputs, one, other = (
        TrainingInputs("d", resume=tmp_path / "c", every=7),
        Model.of(perceptron(4)),
        Model.of(perceptron(4, seed=1)),
    )
    run = (Training(match=("a*",)), "recipe", one, one, "d")
    checkpoint = inputs.open_checkpoint(*run)
    assert checkpoint is not None
    assert checkpoint.every == 7
    checkpoint.save({"step": 1})
    again = inputs.open_checkpoint(Training(match=("a*",), device="cuda"), *run[1:])
    assert again is not None
    assert again.load() == {"step": 1}
    for at, changed, name in (
        (0, Training(lr=0.5), "--match"),
        (1, "x", "run"),
        (2, other, "model"),
        (3, other, "teacher"),
        (4, "e", "data"),
    ):
        given: list[Any] = [*run]
        given[at] = changed
        wrong = inputs.open_checkpoint(*given)
        assert wrong is not None
        with pytest.raises(OptionError, match=f"was written with {name} "):
            wrong.load()


def test_a_run_without_a_file_has_no_checkpoint() -> None:
    model = Model.of(perceptron(4))
    assert TrainingInputs("d").open_checkpoint(Training(), "", model, model, "d") is None
