"""What the meter finds, against running whole models."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Weight
from onnxprune.runtime.session import Session
from onnxprune.runtime.stages import StagedRun
from onnxprune.verify.divergence import divergence
from onnxprune.verify.suffix import SuffixDivergence
from sparse_nets import ready


def test_measures_what_the_whole_model_does() -> None:
    found, calibration = ready()
    model, held = found.model, calibration.held
    starts = {name: next(at for at, node in enumerate(model.graph.node) if name in node.input) for name in ("inner", "last")}
    with StagedRun(model, held) as stages:
        meter = SuffixDivergence(model, held, stages)
        for name, start in starts.items():
            changed = model.copy()
            changed.weights[name] = Weight(name, None, model.weights[name].array() * np.float32(0.5))
            expected = np.mean([divergence(Session(changed).run(feed), Session(model).run(feed)) for feed in held])
            assert meter.measure(changed, start) == pytest.approx(expected, rel=1e-4)
        assert meter.measure(model, starts["last"]) == pytest.approx(0, abs=1e-9)
