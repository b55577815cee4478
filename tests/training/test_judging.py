"""Training has gates, too: they ask for samples that it does not see."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from nets import parse
from onnxprune import Gates, OptionError, QualityError
from onnxprune.options.train import Training
from onnxprune.training.finetune import finetune
from onnxprune.training.inputs import TrainingInputs

BODY = """(float[N,16] x) => (float[N,4] y) <float[16,32] u, float[32,4] v>
  { h = MatMul(x, u) a = Relu(h) y = MatMul(a, v) }"""
DATA = {"x": np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)}
OTHER = {"x": np.random.default_rng(1).normal(size=(32, 16)).astype(np.float32)}
WILD = Training(epochs=1, lr=10.0, loss="distill")


def test_gates_need_samples_that_training_does_not_see() -> None:
    inputs = TrainingInputs(DATA, parse(BODY), gates=Gates(min_agreement="90%"))
    with pytest.raises(OptionError, match="which training does not see: add --eval DATA"):
        finetune(parse(BODY), inputs, WILD)


def test_what_training_spoilt_is_an_error_under_a_gate_and_told_without() -> None:
    asked = TrainingInputs(DATA, parse(BODY), OTHER, gates=Gates(min_agreement="100%"))
    mixed = parse(BODY)
    weight = mixed.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weight)[::-1]), weight.name))
    with pytest.raises(QualityError, match=r"below --min-agreement 100%"):
        finetune(mixed, asked, WILD)
    told = finetune(mixed, TrainingInputs(DATA, parse(BODY)), WILD).report
    assert told["judgement"]["level"] in {"worse", "collapsed"}
    assert told["drift"]["source"] == "samples, which training saw"
