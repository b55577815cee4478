from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, helper

from onnxprune.ir.weights import Array
from onnxprune.runtime.affordable import affordable
from onnxprune.runtime.session import evaluate

NODE = helper.make_node
MODEL = ModelProto(ir_version=9, opset_import=[helper.make_opsetid("", 18)])
HUGE = np.array(2**40)
ZERO, STEP = np.array(0), np.array(1)


def body() -> GraphProto:
    i, go, v = (helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9), ("v", 7)))
    outputs = [helper.make_tensor_value_info("go2", 9, []), helper.make_tensor_value_info("w", 7, [])]
    return helper.make_graph([NODE("Identity", ["go"], ["go2"]), NODE("Add", ["v", "i"], ["w"])], "b", [i, go, v], outputs)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([NODE("Range", ["zero", "n", "step"], ["r"])], {"zero": ZERO, "n": HUGE, "step": STEP}),
        ([NODE("ConstantOfShape", ["n"], ["r"])], {"n": HUGE[None]}),
        ([NODE("Expand", ["x", "n"], ["r"])], {"x": np.ones(1, np.float32), "n": HUGE[None]}),
        ([NODE("Tile", ["x", "n"], ["r"])], {"x": np.ones(1, np.float32), "n": HUGE[None]}),
        ([NODE("Loop", ["n", "", "zero"], ["r"], body=body())], {"n": HUGE, "zero": ZERO}),
        ([NODE("Add", ["column", "row"], ["r"])], {"column": np.ones((2**18, 1)), "row": np.ones((1, 2**18))}),
        ([NODE("Neg", ["n"], ["m"]), NODE("Neg", ["m"], ["k"]), NODE("ConstantOfShape", ["k"], ["r"])], {"n": HUGE[None]}),
    ],
    ids=lambda case: case[-1].op_type if isinstance(case, list) else "",
)
def test_what_would_be_huge_is_not_computed(nodes: list[NodeProto], constants: Mapping[str, Array]) -> None:
    model = MODEL
    assert affordable(model, nodes, constants) is not True
    assert "r" not in evaluate(model, nodes, constants)
    assert evaluate(model, nodes[:-1], constants).keys() == {name for node in nodes[:-1] for name in node.output}


def test_what_is_small_is_computed() -> None:
    nodes = [NODE("Range", ["zero", "n", "step"], ["r"]), NODE("ReduceSum", ["r"], ["s"], keepdims=0)]
    constants = {"zero": ZERO, "n": np.array(1000), "step": STEP}
    assert affordable(MODEL, nodes, constants) is not False
    assert evaluate(MODEL, nodes, constants)["s"] == 499500
