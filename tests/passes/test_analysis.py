"""What follows from a model and its groups."""

from __future__ import annotations

import numpy as np

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize
from onnxprune.passes.analysis import Analysis


def analyzed(text: str) -> Analysis:
    return Couple().run(Normalize().run(Model.of(parse(text))))


def test_the_float32_copy_has_the_same_groups() -> None:
    whole, half = (analyzed(NETS["gate"].replace("float[", kind)) for kind in ("float[", "float16["))
    assert whole.float32 is whole
    assert half.float32 is half.float32
    assert half.float32.model is not half.model
    assert half.float32.is_float32
    assert half.float32.coupling is half.coupling


def test_costs_are_those_of_the_model() -> None:
    analysis = analyzed(NETS["chain"])
    assert analysis.costs is analysis.costs
    assert analysis.costs.cost({}).params == sum(weight.size for weight in analysis.model.weights.values())


def test_samples_come_in_the_type_of_the_float32_copy() -> None:
    half = analyzed(NETS["gate"].replace("float[", "float16["))
    x = np.zeros((8, 3, 8, 8), np.float16)
    assert {feed["x"].dtype for feed in half.calibration(open_samples({"x": x}, half.model.inputs)).every} == {
        np.dtype("float32")
    }
