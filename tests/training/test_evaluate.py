"""Scores of modules agree with those that ONNX Runtime gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import OptionError
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.torch import to_module
from onnxprune.training.evaluate import ModuleEvaluator
from onnxprune.verify.metrics import Evaluation

DIGITS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("metric", ["top1", "agreement", "mse", "cosine"])
def test_scores_are_those_of_onnx_runtime(metric: str) -> None:
    original, other = (Model.of(DIGITS / f"{name}.onnx") for name in ("digits", "digits__bn"))
    rng = np.random.default_rng(0)
    x, labels = rng.random((70, 1, 8, 8), np.float32), rng.integers(10, size=70)
    samples = open_samples({"x": x, "label": labels}, original.inputs)
    judge = ModuleEvaluator(samples, original, to_module(original), metric)
    expected = Evaluation(original, samples, metric).of(other).pruned
    for _ in range(2):  # what the original puts out is kept
        assert judge(to_module(other).eval()) == pytest.approx(expected, abs=1e-5)


def test_the_metric_follows_from_the_samples() -> None:
    model = Model.of(DIGITS / "digits.onnx")
    samples = open_samples({"x": np.zeros((2, 1, 8, 8), np.float32)}, model.inputs)
    assert ModuleEvaluator(samples, model, to_module(model)).metric == "agreement"
    with pytest.raises(OptionError, match="--metric top1 needs labels"):
        ModuleEvaluator(samples, model, to_module(model), "top1")
