"""Only what decoders are made of is taken for one, and what is computed of constants is what ONNX Runtime computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.runtime.session import Session
from onnxprune.sparse.encoding.forms import OPERATORS
from onnxprune.sparse.encoding.recognize import Decoders, decode_weights

ROW = np.array([3, 0, 5, 1, 2, 4, 7, 6], np.int32)
SQUARE = ROW.reshape(2, 4)
ZERO = np.array(0, np.int64)
NODE = helper.make_node


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


def chain(nodes: list[NodeProto], constants: dict[str, Array], opset: int = 18) -> Model:
    """A graph that returns what the last of some nodes makes of constants, beside what it makes of its input."""
    last = nodes[-1].output[0]
    graph = helper.make_graph(
        [*nodes, NODE("Identity", [last], ["y"]), NODE("Identity", ["x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n"])],
        [helper.make_empty_tensor_value_info("y"), helper.make_empty_tensor_value_info("z")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return Model.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9))


def result(model: Model) -> Array:
    array: Array = Session(model, ["y"], optimize=False).run({"x": np.zeros(1, np.float32)})[0]
    return array


def assert_right(model: Model) -> bool:
    """What is decoded, if anything is, equals ONNX Runtime's own result; whether anything was."""
    expected, decoded = result(model), model.copy()
    names = decode_weights(decoded)
    got = result(decoded)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(got, expected)
    return bool(names)


SUMMED = NODE("CumSum", ["row", "zero"], ["p"])
"""A running sum as decoders have it: what follows it belongs to a decoder as long as it is of a decoder's forms."""
BEHIND: dict[str, tuple[list[NodeProto], dict[str, Array]]] = {
    "reverse": ([NODE("CumSum", ["row", "zero"], ["b"], reverse=1)], {}),
    "floats": ([NODE("CumSum", ["c", "zero"], ["b"])], {"c": ROW.astype(np.float32)}),
    "doubles": ([NODE("CumSum", ["c", "zero"], ["b"])], {"c": ROW.astype(np.float64)}),
    "second axis": ([NODE("CumSum", ["c", "one"], ["b"])], {"c": SQUARE, "one": np.array(1, np.int64)}),
    "first axis of two": ([NODE("CumSum", ["c", "zero"], ["b"])], {"c": SQUARE}),
    "last axis": ([NODE("CumSum", ["row", "last"], ["b"])], {"last": np.array(-1, np.int64)}),
    "step": (
        [SUMMED, NODE("Slice", ["p", "st", "en", "ax", "sp"], ["b"])],
        {"st": i64(0), "en": i64(8), "ax": i64(0), "sp": i64(2)},
    ),
    "from the end": ([SUMMED, NODE("Slice", ["p", "st", "en"], ["b"])], {"st": i64(-3), "en": i64(2**31)}),
    "to the end": ([SUMMED, NODE("Slice", ["p", "st", "en"], ["b"])], {"st": i64(0), "en": i64(-3)}),
    "columns": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("Gather", ["q", "at"], ["b"], axis=1)],
        {"sh": i64(2, 4), "at": i64(3, 1)},
    ),
    "adding": (
        [SUMMED, NODE("ScatterElements", ["p", "at", "up"], ["b"], reduction="add")],
        {"at": i64(1, 1, 2), "up": np.array([5, 6, 7], np.int32)},
    ),
    "fewer rows": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("ScatterElements", ["q", "at", "up"], ["b"], axis=1)],
        {"sh": i64(2, 4), "at": i64(3, 1).reshape(1, 2), "up": np.array([[50, 60]], np.int32)},
    ),
    "down columns": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("ScatterElements", ["q", "at", "up"], ["b"], axis=0)],
        {"sh": i64(2, 4), "at": i64(1, 0).reshape(1, 2), "up": np.array([[50, 60]], np.int32)},
    ),
    "remainder": ([SUMMED, NODE("Neg", ["p"], ["q"]), NODE("Mod", ["q", "by"], ["b"], fmod=1)], {"by": np.array([3], np.int32)}),
    "negative dividend": (
        [NODE("CumSum", ["minus", "zero"], ["p"]), NODE("Div", ["p", "by"], ["b"])],
        {"minus": -ROW, "by": np.array([2], np.int32)},
    ),
    "negative modulus": (
        [NODE("CumSum", ["minus", "zero"], ["p"]), NODE("Mod", ["p", "by"], ["b"])],
        {"minus": -ROW, "by": np.array([3], np.int32)},
    ),
    "negative divisor": ([SUMMED, NODE("Div", ["p", "by"], ["b"])], {"by": np.array([-2], np.int32)}),
    "fractions": (
        [SUMMED, NODE("Cast", ["p"], ["q"], to=1), NODE("Div", ["q", "by"], ["b"])],
        {"by": np.array([16.0], np.float32)},
    ),
    "second half": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("Split", ["q", "parts"], ["r", "b"], axis=1)],
        {"sh": i64(2, 4), "parts": i64(1, 3)},
    ),
    "copied sizes": (
        [SUMMED, NODE("Reshape", ["p", "two"], ["q"]), NODE("Reshape", ["q", "sh"], ["b"])],
        {"two": i64(2, 4), "sh": i64(0, -1, 1)},
    ),
    "reversed axes": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("Transpose", ["q"], ["b"])],
        {"sh": i64(2, 4)},
    ),
    "side by side": (
        [SUMMED, NODE("Reshape", ["p", "sh"], ["q"]), NODE("Concat", ["q", "q"], ["b"], axis=1)],
        {"sh": i64(2, 4)},
    ),
    "half steps": (
        [SUMMED, NODE("Range", ["lo", "hi", "by"], ["q"]), NODE("Cast", ["p"], ["r"], to=1), NODE("Add", ["q", "r"], ["b"])],
        {"lo": np.array(0, np.float32), "hi": np.array(4, np.float32), "by": np.array(0.5, np.float32)},
    ),
    "range from one": (
        [SUMMED, NODE("Range", ["lo", "hi", "by"], ["q"]), NODE("Add", ["p", "q"], ["b"])],
        {"lo": np.array(1, np.int32), "hi": np.array(16, np.int32), "by": np.array(2, np.int32)},
    ),
    "overflow": ([SUMMED, NODE("Cast", ["p"], ["b"], to=TensorProto.INT8)], {}),
    "wrapped": (
        [SUMMED, NODE("Mul", ["p", "by"], ["q"]), NODE("Cast", ["q"], ["b"], to=TensorProto.UINT8)],
        {"by": np.array([50], np.int32)},
    ),
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_looks_like_a_decoder_is_computed_as_onnx_runtime_does(name: str) -> None:
    nodes, constants = BEHIND[name]
    assert_right(chain(nodes, {"row": ROW, "zero": ZERO, **constants}))


ATTRIBUTES: dict[str, dict[str, list[Any]]] = {
    "CumSum": {"exclusive": [None, 0, 1], "reverse": [None, 0, 1]},
    "ScatterElements": {"axis": [None, 0, 1, -1], "reduction": [None, "none", "add", "mul", "max"]},
    "Gather": {"axis": [None, 0, 1, -1]},
    "GatherElements": {"axis": [None, 0, 1, -1]},
    "Mod": {"fmod": [None, 0, 1]},
    "Transpose": {"perm": [None, [0, 1], [1, 0]]},
    "Concat": {"axis": [0, 1, -1]},
    "Cast": {"to": [1, 2, 3, 4, 6, 7, 9, 10, 11]},
    "Split": {"axis": [None, 0, 1, -1]},
}
OPERANDS: dict[str, tuple[list[str], dict[str, Array]]] = {
    "CumSum": (["p", "zero"], {}),
    "ScatterElements": (["q", "places", "q"], {"places": np.array([[0, 1, 0, 1], [1, 0, 1, 0]], np.int32)}),
    "Gather": (["q", "places"], {"places": np.array([1, 0], np.int32)}),
    "GatherElements": (["q", "places"], {"places": np.array([[0, 1, 0, 1], [1, 0, 1, 0]], np.int32)}),
    "Mod": (["p", "by"], {"by": np.array([3], np.int32)}),
    "Transpose": (["q"], {}),
    "Concat": (["q", "q"], {}),
    "Cast": (["p"], {}),
    "Split": (["q", "parts"], {"parts": i64(1, 1)}),
}
SWEEP = [
    (op, dict(zip(spelled, values, strict=True))) for op, spelled in ATTRIBUTES.items() for values in product(*spelled.values())
]


@pytest.mark.parametrize(("op", "attributes"), SWEEP, ids=str)
def test_every_attribute(op: str, attributes: dict[str, Any]) -> None:
    """Attributes that decoders have not are seen, or have no effect."""
    inputs, constants = OPERANDS[op]
    given = {name: value for name, value in attributes.items() if value is not None}
    outputs = ["b", "rest"] if op == "Split" else ["b"]
    if op == "Split" and given.get("axis", 0) != 0:
        constants = {"parts": i64(1, 3)}
    nodes = [SUMMED, NODE("Reshape", ["p", "two"], ["q"]), NODE(op, inputs, outputs, **given)]
    assert_right(chain(nodes, {"row": ROW, "zero": ZERO, "two": i64(2, 4), **constants}))


@pytest.mark.parametrize("exclusive", [0, 1])
def test_a_running_sum_of_a_row_is_ours(exclusive: int) -> None:
    model = chain([NODE("CumSum", ["row", "zero"], ["b"], exclusive=exclusive)], {"row": ROW, "zero": ZERO})
    assert assert_right(model)


@pytest.mark.parametrize("attributes", [{"reverse": 1}, {"unheard": 1}])
def test_an_attribute_that_decoders_have_not(attributes: dict[str, Any]) -> None:
    model = chain([NODE("CumSum", ["row", "zero"], ["b"], **attributes)], {"row": ROW, "zero": ZERO})
    assert decode_weights(model) == []


def test_bfloat16_is_made_of_fills_alone() -> None:
    filled = [
        NODE("ConstantOfShape", ["sizes"], ["f"], value=numpy_helper.from_array(np.zeros(1, np.float32))),
        NODE("Cast", ["f"], ["h"], to=TensorProto.BFLOAT16),
        NODE("ScatterElements", ["h", "at", "up"], ["b"]),
    ]
    constants = {"sizes": i64(4), "at": i64(2), "up": np.ones(1, ml_dtypes.bfloat16)}
    found = Decoders(chain(filled, constants))
    assert found.weights["b"].array().astype(np.float32).tolist() == [0, 0, 1, 0]
    constant = [NODE("Cast", ["c"], ["h"], to=TensorProto.BFLOAT16), filled[-1]]
    assert not Decoders(chain(constant, {"c": np.zeros(4, np.float32), **constants})).weights


def test_what_cannot_be_computed_is_an_error_of_the_model() -> None:
    model = chain([NODE("ScatterElements", ["row", "at", "up"], ["b"])], {"row": ROW, "at": i64(99), "up": np.ones(1, np.int32)})
    with pytest.raises(ModelError, match=r"^'b' cannot be computed: ScatterElements of constants: .*; export the model again$"):
        Decoders(model).weights["b"].array()


def test_every_operator_has_a_form() -> None:
    assert {"CumSum", "ScatterElements"} < OPERATORS.keys()
