from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model

ONE = helper.make_tensor_value_info("q", 1, None)


def net() -> ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        net (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y)
        <float[2, 3, 1, 1] a = {1, 2, 3, 4, 5, 6}, float[4, 2, 1, 1] b = {1, 2, 3, 4, 5, 6, 7, 8}> {
            [first] h = Conv <group: int = 1> (x, a)
            [second] r = Relu (h)
            [third] y = Conv (r, b)
        }"""
    )


def sparse(dims: list[int], indices: object, count: int = 2) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        del model.graph.initializer[0]
        values = numpy_helper.from_array(np.ones(count, np.float32), "a")
        where = numpy_helper.from_array(np.array(indices, np.int64), "i")
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=where, dims=dims))

    return change


def node(op: str, inputs: list[str], **attributes: Any) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        model.graph.node.append(helper.make_node(op, inputs, ["z"], "added", **attributes))

    return change


def has_one_twice(model: ModelProto) -> None:
    calls_itself(model)
    model.functions[0].node[0].CopyFrom(helper.make_node("Neg", ["x"], ["y"]))
    model.functions.append(onnx.FunctionProto.FromString(model.functions[0].SerializeToString()))


def calls(*, inputs: int = 1, outputs: int = 1) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        calls_itself(model)
        model.functions[0].node[0].CopyFrom(helper.make_node("Neg", ["x"], ["y"]))
        node = helper.make_node("F", ["x"] * inputs, [f"z{at}" for at in range(outputs)], "added", domain="local")
        model.graph.node.append(node)

    return change


def has_a_function_of(version: int) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        calls()(model)
        model.functions[0].opset_import[0].version = version

    return change


def calls_itself(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], [call], opsets))
    model.opset_import.add(domain="local", version=1)


def attribute(**values: object) -> Callable[[ModelProto], None]:
    return lambda model: model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute(*next(iter(values.items()))))


def set_to(get: Callable[[ModelProto], object], field: str, value: object) -> Callable[[ModelProto], None]:
    return lambda model: setattr(get(model), field, value)


def weight(model: ModelProto) -> Any:
    return model.graph.initializer[0]


def first(model: ModelProto) -> Any:
    return model.graph.node[0]


def entry(model: ModelProto) -> Any:
    return model.graph.input[0]


def dims(*sizes: int) -> Callable[[ModelProto], None]:
    return lambda model: weight(model).dims.__setitem__(slice(None), sizes)


BROKEN: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "index": (sparse([2, 3, 1, 1], [0, 10**6]), "sparse initializer 'a' has an index outside of [2, 3, 1, 1]"),
    "index of an axis": (sparse([2, 3], [[0, 0], [1, 3]]), "sparse initializer 'a' has an index outside"),
    "huge": (sparse([2**20, 2**20, 2**10], [0, 1]), "values for 2 of them: too many"),
    "sparse negative": (sparse([-1, 3], [0, 1]), "sparse initializer 'a' has a negative size"),
    "sparse count": (sparse([2, 3], [0]), "which do not fit"),
    "type 99": (set_to(weight, "data_type", 99), "initializer 'a' has an element type that does not exist (99)"),
    "type 0": (set_to(weight, "data_type", 0), "initializer 'a' has an element type"),
    "dims 2^40": (dims(2**40, 3, 1, 1), "initializer 'a' has data for 6 elements"),
    "dims negative": (dims(-2, 3, 1, 1), "initializer 'a' has a negative size"),
    "no name": (set_to(weight, "name", ""), "an initializer of the graph has no name"),
    "untyped": (lambda m: entry(m).ClearField("type"), "graph input 'x' has no type"),
    "input type 0": (set_to(lambda m: entry(m).type.tensor_type, "elem_type", 0), "graph input 'x' has no element type"),
    "huge input": (
        set_to(lambda m: entry(m).type.tensor_type.shape.dim[2], "dim_value", 2**40),
        "graph input 'x' has 3x1099511627776x8 elements",
    ),
    "If": (node("If", ["x"], then_branch=helper.make_graph([], "t", [], [])), "If node 'added' has no attribute 'else_branch'"),
    "If of ints": (node("If", ["x"], then_branch=1, else_branch=2), "'else_branch' of If node 'added' is not GRAPH"),
    "Loop": (node("Loop", ["", "", "x"]), "Loop node 'added' has no attribute 'body'"),
    "Scan": (
        node("Scan", ["x"], num_scan_inputs=2**40, body=helper.make_graph([], "b", [ONE], [ONE])),
        "Scan node 'added' scans 1099511627776 of its 1 inputs",
    ),
    "body": (
        node("Loop", ["", "", "x"], body=helper.make_graph([], "b", [ONE], [ONE])),
        "body of Loop node 'added' takes 1 values, and gets 3",
    ),
    "domain": (set_to(first, "domain", "foo"), "Conv node 'first' is of domain 'foo', which the model does not import"),
    "function": (calls_itself, "function 'F' calls itself"),
    "function's inputs": (calls(inputs=2), "F node 'added' has 2 inputs; its function takes 1"),
    "function's outputs": (calls(outputs=3), "F node 'added' has 3 outputs; its function makes 1"),
    "function twice": (has_one_twice, "there are two functions 'F' of domain 'local'"),
    "attribute": (attribute(group="x"), "attribute 'group' of Conv node 'first' is not INT"),
    "reference": (set_to(lambda m: first(m).attribute[0], "ref_attr_name", "g"), "refers to a function's attribute"),
    "no input": (lambda m: m.graph.node[1].ClearField("input"), "Relu node 'second' has 0 inputs"),
    "no operator": (set_to(first, "op_type", ""), "has no operator"),
    "Constant": (node("Constant", []), "Constant node 'added' has 0 attributes"),
    "undefined": (lambda m: first(m).input.__setitem__(0, "no"), "Conv node 'first' reads 'no', which nothing makes"),
    "output": (set_to(lambda m: m.graph.output[0], "name", "no"), "nothing makes output 'no' of the graph"),
    "twice": (lambda m: first(m).output.__setitem__(0, "y"), "two inputs or nodes of the graph make 'y'"),
    "constant and node": (lambda m: first(m).output.__setitem__(0, "b"), "'b' is a constant of the graph"),
    "operator set of a function": (
        has_a_function_of(2**40),
        f"operator set {2**40} of domain 'ai.onnx' does not exist",
    ),
    "operator set": (set_to(lambda m: m.opset_import[0], "version", -3), "operator set -3 of domain 'ai.onnx' does not exist"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_contradicts_itself_is_refused(case: str) -> None:
    model = net()
    change, message = BROKEN[case]
    change(model)
    with pytest.raises(ModelError, match=re.escape(message)):
        Model.of(model)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "abc"}, "initializer 'a' has external data whose offset is no number of bytes: 'abc'"),
        ({"offset": "-5"}, "offset is no number"),
        ({"offset": ""}, "offset is no number"),
        ({"length": "-1"}, "length is no number"),
        ({"length": "3"}, "initializer 'a' has 3 bytes of external data, and needs 24"),
        ({"offset": "1000000000000"}, "ends before tensor 'a' does"),
        ({"location": "a\0b"}, "names no file"),
        ({"location": "loop"}, "is a link that leads nowhere"),
        ({"location": "x" * 5000}, "names no file"),
        ({"location": ""}, "is missing"),
    ],
)
def test_external_data_that_is_not_there_is_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    model = net()
    tensor = weight(model)
    (tmp_path / "w.bin").write_bytes(bytes(24))
    (tmp_path / "loop").symlink_to("loop")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message) as caught:
        Model.of(path)
    assert str(path) in str(caught.value)


def test_a_name_that_is_not_text_is_refused() -> None:
    data = net().SerializeToString().replace(b"second", b"sec\xff\xfed")
    with pytest.raises(ModelError, match="not text"):
        Model.of(data)


def test_what_onnx_runtime_takes_passes() -> None:
    model = net()
    model.graph.initializer.append(weight(model))  # the last of two counts
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    first(model).attribute.append(helper.make_attribute("unheard_of", 1.5))
    assert set(Model.of(model).weights) == {"a", "b"}
