"""What can go without loss, as a lever."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from onnxprune.driver.levers.base import Made, Mixture
from onnxprune.driver.levers.lossless import Lossless
from onnxprune.runtime.session import Session
from optimizable import X, ground, net


def test_dead_channels_go_and_the_outputs_stay() -> None:
    proto = net()
    for tensor in proto.graph.initializer:
        if tensor.name in {"w2", "b2"}:
            array = numpy_helper.to_array(tensor).copy()
            array[:16] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    lever = Lossless(ground(proto=proto))
    (choice,) = lever.choices()
    made = lever.carry_out(Made(Mixture(), lever.ground.original), choice)
    assert made.model.weights["w2"].shape[0] == 16
    (step,) = made.steps
    assert step.check is not None
    assert step.check.ok
    before, after = (Session(model).run({"x": X[:4]})[0] for model in (lever.ground.original, made.model))
    assert np.allclose(before, after, atol=1e-5)


def test_where_nothing_can_go_nothing_is_offered_and_the_reason_is_noted() -> None:
    lever = Lossless(ground())
    assert not lever.choices()
    assert "nothing can go without loss" in lever.notes[0]
