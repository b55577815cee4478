"""Subnormal weights, as a lever."""

from __future__ import annotations

from onnx import helper, numpy_helper

from onnxprune.driver.levers.base import Made, Mixture
from onnxprune.driver.levers.subnormals import Subnormals
from optimizable import ground, net


def test_they_become_zero_in_constants_that_nodes_hold_too() -> None:
    proto = net()
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            array = numpy_helper.to_array(tensor).copy()
            array[:16] = 1e-41
            proto.graph.node.insert(0, helper.make_node("Constant", [], ["w2"], value=numpy_helper.from_array(array)))
            proto.graph.initializer.remove(tensor)
    lever = Subnormals(ground(proto=proto))
    (choice,) = lever.choices()
    made = lever.carry_out(Made(Mixture(), lever.ground.original), choice)
    assert not made.model.weights["w2"].array()[:16].any()
    (step,) = made.steps
    assert step.check is not None
    assert step.check.ok


def test_where_there_are_none_nothing_is_offered() -> None:
    assert not Subnormals(ground()).choices()
