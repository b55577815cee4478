"""The axes of a graph: two nodes and what unification makes of them; `test_coupling` has the groups of many graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from nets import parse
from onnxprune.axes.graph_axes import GraphAxes, ranks
from onnxprune.driver.prune import analyze
from onnxprune.ir.control_flow import walk


def test_values_that_meet_share_factors() -> None:
    found = analyze(
        parse("""(float[N,3] x) => (float[N,4] y) <float[3,6] w, float[6,4] v> {
  h = MatMul(x, w)
  y = MatMul(h, v)
}""")
    )
    graph = GraphAxes(found.model, found.shapes)
    for path, step in walk(found.model.graph, found.model.opset):
        graph.state(path, step)
    assert graph.axes["w"][1].root is graph.axes["h"][1].root is graph.axes["v"][0].root
    assert [node.view.op for node in graph.nodes] == ["MatMul", "MatMul"]
    assert graph.uses == {"w": ("MatMul", 1), "v": ("MatMul", 1)}
    graph.fix_interface()
    assert graph.axes["y"][1].root.fixed
    assert not graph.axes["h"][1].root.fixed


def test_a_reshape_of_nothing_leaves_axes_as_they_are() -> None:
    """An input of no frames, as some files declare it."""
    found = analyze(
        parse("""(float[N,0,8] x) => (float[N,0,8] y) <float[8,8] w, int64[4] s = {0,0,2,4}, int64[3] t = {0,0,8}> {
  h = MatMul(x, w)
  a = Reshape(h, s)
  b = Relu(a)
  y = Reshape(b, t)
}""")
    )
    assert not found.coupling.groups


def test_ranks() -> None:
    assert ranks([(2, 3), None, ()]) == (2, None, 0)


def joined(count: int) -> ModelProto:
    """Many linear layers of one input, whose outputs one node joins."""
    nodes = [helper.make_node("MatMul", ["x", f"w{at}"], [f"h{at}"]) for at in range(count)]
    nodes += [helper.make_node("Concat", [f"h{at}" for at in range(count)], ["h"], axis=1)]
    nodes += [helper.make_node("MatMul", ["h", "v"], ["y"])]
    weights = [numpy_helper.from_array(np.ones((4, 2), np.float32), f"w{at}") for at in range(count)]
    weights += [numpy_helper.from_array(np.ones((2 * count, 3), np.float32), "v")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_joining_many_values_takes_steps_in_proportion_to_their_number() -> None:
    few, many = (steps(partial(analyze, joined(count))) for count in (40, 400))
    assert many < 12 * few


def steps(function: Callable[[], object]) -> int:
    """How many Python functions and generators are entered."""
    count = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
