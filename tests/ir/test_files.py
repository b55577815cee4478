"""Output files: whole or not at all, also in two files, with nothing left behind."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import ModelError, OutputError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from two_files import chain, names, weights


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LIMIT", 1000)
    monkeypatch.setattr(files, "LARGE", 1000)


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    one, other, model = tmp_path / "one", tmp_path / "other", tmp_path / "model.onnx"
    one.symlink_to(other)
    other.symlink_to(one)
    model.symlink_to(one)
    with pytest.raises(OutputError, match="is a symbolic link"):
        files.check_output(one, force=True)
    with pytest.raises(ModelError, match="leads nowhere"):
        Model.of(model)


@pytest.mark.usefixtures("small_limit")
def test_a_large_model_is_written_in_two_files_bit_for_bit(tmp_path: Path) -> None:
    proto, path = chain(), tmp_path / "out.onnx"
    files.save(Model.of(proto), path)
    assert names(tmp_path) == {"out.onnx", "out.onnx.data"}
    onnx.checker.check_model(path)
    assert weights(path) == {t.name: numpy_helper.to_array(t).tobytes() for t in proto.graph.initializer}
    stored = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    assert stored["bias"].raw_data
    for name in ("w0", "w1", "w2"):
        entries = {entry.key: entry.value for entry in stored[name].external_data}
        assert entries["location"] == "out.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
        assert not stored[name].raw_data
    x = np.ones((2, 64), np.float32)
    (got,), (expected,) = (ort.InferenceSession(m).run(None, {"x": x}) for m in (str(path), proto.SerializeToString()))
    assert np.array_equal(got, expected)
    assert [value.name for value in onnx.load(path).graph.input] == ["x"]


@pytest.mark.usefixtures("small_limit")
def test_a_model_in_two_files_passes_through_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    files.save(Model.of(chain()), first)
    files.save(Model.of(first), second)
    assert weights(first) == weights(second)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("fails", [1, 2])
def test_a_failure_in_either_file_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    path = tmp_path / "out.onnx"
    files.save(Model.of(chain()), path)
    before, there = weights(path), names(tmp_path)
    renamed: list[object] = []
    replace = Path.replace

    def full(self: Path, target: Any) -> Path:
        renamed.append(target)
        if len(renamed) == fails:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        files.save(Model.of(chain(seed=1)), path)
    assert names(tmp_path) == there
    assert weights(path) == before


@pytest.mark.usefixtures("small_limit")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    source, path = tmp_path / "in.onnx", tmp_path / "out.onnx"
    files.save(Model.of(chain(1024)), source)  # three times 4 MiB
    model = Model.of(source)
    model.weights["w0"] = model.weights["w0"].derived((1024, 1024), lambda array: array + 1)
    tracemalloc.start()
    try:
        files.save(model, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 2**20
    w0 = {t.name: numpy_helper.to_array(t) for t in chain(1024).graph.initializer}["w0"]
    assert weights(path)["w0"] == (w0 + 1).tobytes()


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_size_of_a_model_counts_its_data_files(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    array = np.ones((100, 100), np.float32)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [helper.make_empty_tensor_value_info("y")])
    graph.initializer.append(numpy_helper.from_array(array, "w"))
    onnx.save(helper.make_model(graph), path)
    assert files.model_files(path) == [path]
    assert files.size_on_disk(path) == path.stat().st_size
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="data", size_threshold=0)
    assert files.model_files(path) == [path, tmp_path / "data"]
    assert files.size_on_disk(path) == path.stat().st_size + array.nbytes


@pytest.mark.parametrize("version", [3, 8])
def test_bytes_are_known_before_they_are_written(version: int, tmp_path: Path) -> None:
    """Whatever holds the data of a constant: a protobuf with raw or typed data, another file, an array."""
    proto, data, path = chain(), tmp_path / "data.onnx", tmp_path / "out.onnx"
    proto.ir_version = version
    for value in proto.graph.initializer if version < 4 else ():
        proto.graph.input.append(helper.make_tensor_value_info(value.name, value.data_type, value.dims))
    proto.graph.initializer[0].doc_string = "the first"
    typed = numpy_helper.to_array(proto.graph.initializer[1])
    proto.graph.initializer[1].CopyFrom(helper.make_tensor(proto.graph.initializer[1].name, 1, typed.shape, typed.ravel()))
    beside = onnx.ModelProto.FromString(proto.SerializeToString())
    onnx.save(beside, data, save_as_external_data=True, location="data", size_threshold=2000)
    for source in (proto, data):
        model = Model.of(source)
        one = next(iter(model.weights))
        model.weights["a much longer name"] = model.weights.pop(one).renamed("a much longer name")
        model.weights["made"] = model.weights["a much longer name"].derived((0, 3), lambda array: array.ravel()[:0].reshape(0, 3))
        files.save(model, path)
        assert files.written_bytes(model) == path.stat().st_size
    assert files.source_bytes(Model.of(data)) == files.size_on_disk(data)
    assert files.source_bytes(Model.of(proto)) == proto.ByteSize()


@pytest.mark.usefixtures("small_limit")
def test_bytes_of_two_files_are_known_about(tmp_path: Path) -> None:
    model, path = Model.of(chain()), tmp_path / "out.onnx"
    files.save(model, path)
    assert files.written_bytes(model) == pytest.approx(files.size_on_disk(path), abs=4096 + 128 * len(model.weights))
