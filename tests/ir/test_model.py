"""Models: what is read is written back, weights are read when they are needed, in every spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.errors import ModelError
from onnxprune.ir import weights
from onnxprune.ir.model import Model
from onnxprune.ir.node import NodeView, captured, every_body
from onnxprune.ir.weights import Weight, densify
from two_files import outside

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int8": np.int8,
    "uint8": np.uint8,
    "int64": np.int64,
    "bool": np.bool_,
    "complex64": np.complex64,
}
FLOATS = {"float16", "float32", "float64", "bfloat16"}


def values(dtype: Any, shape: tuple[int, ...] = (3, 5)) -> Any:
    return (np.arange(np.prod(shape)) % 7).reshape(shape).astype(dtype)


def tensors(*arrays: Any, **sparse: Any) -> onnx.ModelProto:
    """A model that does nothing with some weights."""
    proto = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { y = Relu(x) }')
    proto.graph.initializer.extend(arrays)
    return proto


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (1,), (), (0, 3)])
def test_every_type_is_read_and_written_back(name: str, shape: tuple[int, ...]) -> None:
    array = values(DTYPES[name], shape)
    proto = tensors(numpy_helper.from_array(array, "w"))
    weight = Model.of(proto).weights["w"]
    assert np.array_equal(weight.array(), array)
    assert (weight.shape, weight.size, weight.is_float) == (shape, array.size, name in FLOATS)
    assert weight.nbytes == len(proto.graph.initializer[0].raw_data)
    assert Model.of(proto).to_proto() == proto


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("skip", [0, 4096, 3])
def test_every_type_is_mapped_from_a_data_file(tmp_path: Path, name: str, skip: int) -> None:
    array = values(DTYPES[name])
    model = Model.of(outside(tmp_path / "m.onnx", array, skip=skip))
    assert np.array_equal(model.weights["w"].array(), array)
    (inside,) = model.to_proto().graph.initializer
    assert inside.data_location == TensorProto.DEFAULT
    assert np.array_equal(numpy_helper.to_array(inside), array)


@pytest.mark.parametrize("name", DTYPES)
def test_derived_weights_are_written_in_their_type(name: str) -> None:
    array = values(DTYPES[name])
    derived = Weight("w", numpy_helper.from_array(array, "w")).derived((3, 2), lambda whole: whole[:, :2]).renamed("v")
    proto = onnx.GraphProto()
    derived.append_to(proto.initializer)
    assert proto.initializer[0].name == "v"
    assert proto.initializer[0].data_type == helper.np_dtype_to_tensor_dtype(array.dtype)
    assert np.array_equal(numpy_helper.to_array(proto.initializer[0]), array[:, :2])


@pytest.mark.parametrize("name", DTYPES)
def test_weights_stream_as_raw_data(name: str, tmp_path: Path) -> None:
    array = values(DTYPES[name])
    with (tmp_path / "raw").open("wb") as file:
        Weight("w", None, array).write(file)
    assert (tmp_path / "raw").read_bytes() == numpy_helper.from_array(array).raw_data


def test_text_is_a_weight_of_no_bytes() -> None:
    proto = tensors(numpy_helper.from_array(np.array(["a", "é"], object), "w"))
    weight = Model.of(proto).weights["w"]
    assert weight.nbytes == 0
    assert [bytes(v).decode() if isinstance(v, bytes) else v for v in weight.array()] == ["a", "é"]
    assert Model.of(proto).to_proto() == proto


def test_weights_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = weights._map_external

    def spy(proto: TensorProto, file: Path | None) -> Any:
        read.append(proto.name)
        return real(proto, file)

    monkeypatch.setattr(weights, "_map_external", spy)
    model = Model.of(outside(tmp_path / "m.onnx", values(np.float32)))
    weight = model.weights["w"].derived((3, 5), lambda array: array * 2)
    assert weight.nbytes == 60 < model.nbytes
    assert set(model.copy().weights) == {"w"}
    assert read == []
    assert isinstance(model.weights["w"].array().base, np.memmap)
    assert np.array_equal(weight.array(), values(np.float32) * 2)
    assert read == ["w", "w"]


def test_damaged_data_is_a_model_error() -> None:
    proto = tensors(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], raw_data=b"\0" * 7))
    with pytest.raises(ModelError, match="initializer 'w' has 7 bytes of data, and needs 12"):
        Model.of(proto)


DENSE = np.zeros((3, 4), np.float32)
DENSE[0, 1], DENSE[1, 3], DENSE[2, 0] = 1.5, -2, 3


def sparse(form: str, spelling: str) -> onnx.SparseTensorProto:
    where = np.flatnonzero(DENSE) if form == "linear" else np.argwhere(DENSE)
    indices = where.astype(np.int64)
    if spelling == "raw_data":
        tensor = numpy_helper.from_array(indices, "w_indices")
    else:
        tensor = helper.make_tensor("w_indices", TensorProto.INT64, indices.shape, indices.reshape(-1).tolist())
    assert tensor.HasField("raw_data") is (spelling == "raw_data")
    return helper.make_sparse_tensor(numpy_helper.from_array(DENSE[DENSE != 0], "w"), tensor, list(DENSE.shape))


@pytest.mark.parametrize("form", ["linear", "per axis"])
@pytest.mark.parametrize("spelling", ["raw_data", "int64_data"])
def test_sparse_weights_are_decoded(form: str, spelling: str) -> None:
    proto = tensors()
    proto.graph.sparse_initializer.append(sparse(form, spelling))
    model = Model.of(proto)
    assert np.array_equal(model.weights["w"].array(), DENSE)
    assert model.weights["w"].shape == (3, 4)
    written = model.to_proto().graph
    assert not written.sparse_initializer
    assert np.array_equal(numpy_helper.to_array(written.initializer[0]), DENSE)


@pytest.mark.parametrize("dims", [(1,), (1, 2)])
def test_a_sparse_tensor_without_entries_is_zero(dims: tuple[int, ...]) -> None:
    shape = (0,) if len(dims) == 1 else (0, 2)
    empty = helper.make_sparse_tensor(
        numpy_helper.from_array(np.zeros(0, np.float32), "w"), numpy_helper.from_array(np.zeros(shape, np.int64), "i"), [2, 3]
    )
    assert np.array_equal(densify(empty), np.zeros((2, 3), np.float32))


def test_sparse_constants_become_weights() -> None:
    from onnxprune.passes import Normalize

    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }'
    )
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse("per axis", "int64_data"))
    proto.graph.node.insert(0, node)
    model = Normalize().run(Model.of(proto)).model
    assert np.array_equal(model.weights["w"].array(), DENSE)


def rich() -> onnx.ModelProto:
    """A model with something in nearly every field."""
    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18, "mine" : 1], producer_name: "p", producer_version: "v", domain: "d",
         model_version: 7, doc_string: "about", metadata_props: ["key": "value", "other": ""]>
        g (float[N, 4] x, float[4, 4] w) => (float[N, 4] y)
        <float[4, 4] w, int64[1] extra = {3}, float[N, 4] a>
        { a = MatMul(x, w)  b = mine.twice(a)  y = Relu(b) }
        <domain: "mine", opset_import: ["" : 18]> twice (v) => (z) { z = Add(v, v) }
    """)
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    proto.graph.doc_string = "graph"
    proto.graph.node[0].doc_string, proto.graph.node[0].name = "node", "n"
    proto.graph.node[0].metadata_props.add(key="k", value="v")
    proto.graph.metadata_props.add(key="k", value="v")
    proto.graph.initializer[0].doc_string = "tensor"
    proto.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    step = proto.training_info.add()
    step.algorithm.name = "step"
    step.update_binding.add(key="w", value="y")
    proto.functions[0].doc_string = "function"
    return proto


def test_what_is_not_touched_is_written_back(tmp_path: Path) -> None:
    proto = rich()
    before = proto.SerializeToString(deterministic=True)
    for source in (proto, before, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        (tmp_path / "m.onnx").write_bytes(before)
        written, expected = Model.of(source).copy().to_proto(), onnx.ModelProto.FromString(before)
        expected.ClearField("functions")
        for one in (written, expected):
            held = sorted(one.graph.initializer, key=lambda tensor: tensor.name)
            del one.graph.initializer[:]
            one.graph.initializer.extend(held)
        assert [node.op_type for node in written.graph.node] == ["MatMul", "Add", "Relu"]  # the function is inlined
        assert written.graph.node[0] == proto.graph.node[0]
        for one, called in ((written, 1), (expected, 1)):
            del one.graph.node[called]
        assert written == expected
    assert proto.training_info[0].update_binding


def test_the_source_is_never_changed() -> None:
    proto = rich()
    before = proto.SerializeToString(deterministic=True)
    model = Model.of(proto)
    model.graph.node[0].op_type = "Gemm"
    copy = model.copy()
    copy.graph.node[0].op_type = "Conv"
    del copy.weights["w"]
    assert proto.SerializeToString(deterministic=True) == before
    assert model.graph.node[0].op_type == "Gemm"
    assert "w" in model.weights


def test_inputs_are_what_a_caller_must_feed() -> None:
    model = Model.of(rich())
    assert [value.name for value in model.inputs] == ["x"]
    assert (model.opset, model.opset_of("mine"), model.opset_of("ai.onnx")) == (18, 1, 18)


def test_a_skeleton_declares_the_weights_it_leaves_out() -> None:
    model = Model.of(rich())
    bare = model.skeleton(keep_below=1)
    assert [tensor.name for tensor in bare.graph.initializer] == ["extra"]
    assert sorted(value.name for value in bare.graph.input) == ["w", "x"]
    assert len(model.skeleton().graph.initializer) == 2


BRANCHES = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (bool c, float[N] x, float[N] y) => (float[N] z) {
        u = Relu(x)
        v = Neg(y)
        z = If (c) <
            then_branch = then () => (float[N] t) { s = Add(u, x)  t = Add(s, s) },
            else_branch = otherwise () => (float[N] e) {
                e = If (c) <then_branch = a () => (float[N] p) { p = Abs(v) }, else_branch = b () => (float[N] q) { q = Neg(u) }>
            }
        >
    }
"""


def test_captures_are_found_through_every_level() -> None:
    model = Model.of(parser.parse_model(BRANCHES))
    relu, neg, branch = model.graph.node
    assert captured(relu) == captured(neg) == set()
    assert captured(branch) == {"u", "v", "x", "c"}
    readers = {name: [(node.op_type, position) for node, position in found] for name, found in model.consumers().items()}
    assert readers["x"] == [("Relu", 0), ("Add", 1)]
    assert readers["v"] == [("Abs", 0)]
    assert readers["c"] == [("If", 0), ("If", 0)]
    assert readers["s"] == [("Add", 0), ("Add", 1)]


def test_what_a_body_owns_is_not_captured() -> None:
    body = parser.parse_graph("""
        b (int64 i, bool c, float[N] carried) => (bool d, float[N] next) <float[1] own = {1}> {
            d = Identity(c)  s = Add(carried, own)  next = Add(s, outer)
        }
    """)
    node = helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body)
    assert captured(node) == {"outer"}


def test_external_data_of_bodies_is_read(tmp_path: Path) -> None:
    body = parser.parse_graph("b () => (float[4] t) <float[4] w = {1, 2, 3, 4}> { t = Neg(w) }")
    other = parser.parse_graph("o () => (float[4] e) { e = Abs(x) }")
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
    ]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tensor,) = (tensor for body in every_body(proto.graph) for tensor in body.initializer)
    (tmp_path / "weights").write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    onnx.save(proto, tmp_path / "model.onnx")
    (read,) = (tensor for body in every_body(Model.of(tmp_path / "model.onnx").graph) for tensor in body.initializer)
    assert numpy_helper.to_array(read).tolist() == [1, 2, 3, 4]
    (tmp_path / "weights").unlink()
    with pytest.raises(ModelError, match="weights of tensor 'w' is missing"):
        Model.of(tmp_path / "model.onnx")


def test_floats_that_bodies_hold_count() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]> g (bool c, int64 x) => (int64 y) {
      y = If (c) <then_branch = yes () => (int64 t) <float w = {1}> { t = Cast<to = 7>(w) },
                  else_branch = no () => (int64 e) { e = Neg(x) }>
    }"""
    assert Model.of(parser.parse_model(text)).has_floats
    assert not Model.of(parser.parse_model(text.replace("<float w = {1}>", "<int64 w = {1}>"))).has_floats
    assert Model.of(parser.parse_model(text.replace("<float w = {1}> {", "{ w = Constant<value_float = 1.0>()"))).has_floats


def test_fresh_names_are_fresh() -> None:
    model = Model.of(rich())
    assert [model.fresh_name(name) for name in ("new", "new", "a", "w")] == ["new", "new__1", "a__1", "w__1"]


def test_graphs_of_graphsurgeon_are_models() -> None:
    import onnx_graphsurgeon as gs

    proto = tensors(numpy_helper.from_array(values(np.float32), "w"))
    assert [node.op_type for node in Model.of(gs.import_onnx(proto)).graph.node] == ["Relu"]


@pytest.mark.parametrize("source", [3, None, {}, [b""]])
def test_other_things_are_not_models(source: object) -> None:
    with pytest.raises(ModelError, match="a model is a path"):
        Model.of(source)


def test_a_file_that_is_not_there_is_one_that_is(tmp_path: Path) -> None:
    """What may have been meant is named, by the name of the file alone: folders may be long, and alike."""
    gone = tmp_path / "digit.onnx"
    with pytest.raises(ModelError, match=r"digit\.onnx: no such file, and no other \.onnx file beside it"):
        Model.of(gone)
    for name in ("a1", "b2", "c3", "d4"):
        (tmp_path / f"{name}.onnx").touch()
    with pytest.raises(ModelError, match=r"no such file; beside it are a1.onnx, b2.onnx, c3.onnx, \.\.\."):
        Model.of(gone)
    (tmp_path / "digits.onnx").touch()
    with pytest.raises(ModelError, match=r"digit.onnx: no such file; did you mean '.*digits\.onnx'\?"):
        Model.of(gone)
    with pytest.raises(ModelError, match=r"no such file, and no folder .*nowhere"):
        Model.of(tmp_path / "nowhere" / "a.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match=r"is a folder, not an \.onnx file, and has none in it"):
        Model.of(tmp_path / "folder")


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        Model.of(b"hello world")


def test_views_read_attributes_and_constants() -> None:
    node = helper.make_node("Pad", ["x", "pads", ""], ["y"], mode="edge", axis=-1)
    view = NodeView(node, {"x": (2, 3), "y": (2, 5)}, {"pads": np.array([0, 1, 0, 1])}, {"x": (True, False)}, 18)
    assert (view.name, view.attr("mode"), view.attr("absent", 7)) == ("Pad(y)", "edge", 7)
    assert (view.has(1), view.has(2), view.has(3)) == (True, False, False)
    assert (view.shape(), view.out(), view.axis()) == ((2, 3), (2, 5), 1)
    assert (view.ints("pads", 1), view.ints("absent", 2)) == ([0, 1, 0, 1], None)
    assert [view.is_dynamic(axis) for axis in (0, 1)] == [True, False]
