"""A target says that channels go; without one weights become zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.options.train import Sparse, Training
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.train import train

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
DATA = {"image": np.random.default_rng(0).random((32, 1, 8, 8), np.float32)}


@pytest.mark.parametrize(
    ("recipe", "smaller"), [(Sparse(sparsity=0.5), False), (Sparse(method="oneshot", target="params=0.8"), True)]
)
def test_a_target_is_for_channels(recipe: Sparse, smaller: bool) -> None:
    found = train(DIGITS, TrainingInputs(DATA, teacher=DIGITS), recipe, Training(epochs=1, batch=16, device="cpu"))
    assert (found.compiled.nbytes < 0.9 * DIGITS.stat().st_size) == smaller
    assert (found.report["sparsity"] > 0.4) != smaller
