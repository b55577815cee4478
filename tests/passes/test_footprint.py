"""What a model takes where it is stored: the file's bytes, and each parameter once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from control_flow_nets import NETS as FORMS
from control_flow_nets import net
from nets import NETS, parse
from onnxprune.driver.encode import encode
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize
from onnxprune.passes.footprint import footprint, footprint_of_file


def shared_through_copies() -> ModelProto:
    """Two layers, one matrix: the second reads it through ``Identity``."""
    return parse("""(float[N,6] x) => (float[N,6] y) <float[6,6] w, float[6] b> {
      a = MatMul(x, w)
      v = Identity(w)
      c = MatMul(a, v)
      d = Add(c, b)
      y = Add(d, b)
    }""")


def test_what_layers_share_counts_once() -> None:
    model = shared_through_copies()
    assert footprint_of_file(Model.of(model)).params == 6 * 6 + 6
    assert footprint_of_file(Model.of(model)).size == model.ByteSize()


@pytest.mark.parametrize("name", sorted(FORMS))
def test_weights_in_bodies_count(name: str) -> None:
    model = net(name)
    taken = footprint_of_file(Model.of(model))
    assert taken.params >= sum(
        weight.size for weight in Normalize().run(Model.of(model)).model.weights.values() if weight.is_float
    )
    assert taken.size == model.ByteSize()


@pytest.mark.parametrize("name", sorted(NETS))
def test_what_is_counted_is_what_is_written(name: str, tmp_path: Path) -> None:
    normal = Normalize().run(Model.of(parse(NETS[name]))).model
    files.save(normal, tmp_path / "m.onnx")
    assert footprint(normal).size == (tmp_path / "m.onnx").stat().st_size
    assert footprint_of_file(Model.of(tmp_path / "m.onnx")) == footprint(normal)


def test_encoded_weights_count_as_what_they_decode_to() -> None:
    weight = np.zeros((64, 64), np.float32)
    weight[::8, ::4] = np.random.default_rng(0).standard_normal((8, 16))
    model = parse("(float[N,64] x) => (float[N,64] y) <float[64,64] w> { y = MatMul(x, w) }")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    packed = encode(model).compiled
    assert footprint(packed).params == 64 * 64
    assert footprint(packed).size == len(packed.to_proto().SerializeToString()) < model.ByteSize()


def test_external_data_and_sparse_tensors_count_as_they_lie_on_disk(tmp_path: Path) -> None:
    model, path = parse("(float[N,64] x) => (float[N,64] y) <float[64,64] w> { y = MatMul(x, w) }"), tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    taken = footprint_of_file(Model.of(path))
    assert taken.size == path.stat().st_size + 4 * 64 * 64
    assert taken.params == 64 * 64

    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    indices = helper.make_tensor("i", TensorProto.INT64, [3], [0, 70, 4095])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(weight, indices, [64, 64]))
    del model.graph.initializer[:]
    assert footprint_of_file(Model.of(model)).size == model.ByteSize() < 4 * 64 * 64
