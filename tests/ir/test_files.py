"""Output files: whole or not at all, also in two files, with nothing left behind."""

from __future__ import annotations

import os
import stat
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, OutputError
from onnxprune.ir import files
from onnxprune.ir.model import Model


def chain(rows: int = 64, seed: int = 0) -> onnx.ModelProto:
    """Three products with matrices [rows, rows] and a bias, which is small."""
    rng = np.random.default_rng(seed)
    tensors = [numpy_helper.from_array(rng.standard_normal((rows, rows), np.float32), f"w{n}") for n in range(3)]
    tensors.append(numpy_helper.from_array(rng.standard_normal(rows, np.float32), "bias"))
    values = ["x", "a", "b", "c"]
    nodes = [helper.make_node("MatMul", [values[n], f"w{n}"], [values[n + 1]]) for n in range(3)]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["c", "bias"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", rows])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def weights(path: Path) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LIMIT", 1000)
    monkeypatch.setattr(files, "LARGE", 1000)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write() -> None:
        with files.replace_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"out"}


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    def write() -> None:
        with files.replace_file(tmp_path / "out"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="out: cannot be written: No space left"):
        write()
    assert names(tmp_path) == set()


def test_a_vanished_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), files.replace_file(tmp_path / "gone" / "out"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with files.replace_file(tmp_path / "out") as file:
            file.write(b"new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~mask


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine")
    link.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"):
        files.check_output(link)
    with files.replace_file(files.check_output(link, force=True)) as file:
        file.write(b"new")
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"mine", b"new", False)


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    one, other, model = tmp_path / "one", tmp_path / "other", tmp_path / "model.onnx"
    one.symlink_to(other)
    other.symlink_to(one)
    model.symlink_to(one)
    assert files.check_output(one, inputs=(tmp_path / "absent",), force=True) == one
    with pytest.raises(OutputError, match="another file of this command"):
        files.check_output(one, inputs=(one,))
    with pytest.raises(ModelError, match="leads nowhere"):
        Model.of(model)


def test_a_name_as_long_as_they_go_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with files.replace_file(files.check_output(path)) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


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
@pytest.mark.parametrize("rounds", [2, 3])
def test_replacing_leaves_no_orphan(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "out.onnx"
    for seed in range(rounds):
        files.save(Model.of(chain(seed=seed)), path)
    assert weights(path) == {t.name: t.raw_data for t in chain(seed=rounds - 1).graph.initializer}
    assert len(names(tmp_path)) == 2
    files.LIMIT = 2**20
    files.save(Model.of(chain(8)), path)
    assert names(tmp_path) == {"out.onnx"}


@pytest.mark.usefixtures("small_limit")
def test_data_that_another_model_reads_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "out.onnx", tmp_path / "copy.onnx"
    files.save(Model.of(chain()), path)
    other.write_bytes(path.read_bytes())
    before = weights(other)
    files.save(Model.of(chain(seed=1)), path)
    assert weights(other) == before
    assert weights(path) != before


@pytest.mark.usefixtures("small_limit")
def test_data_that_the_input_reads_from_another_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path, source = tmp_path / "sub" / "out.onnx", tmp_path / "in.onnx"
    files.save(Model.of(chain()), path)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = f"sub/{entry.value}" if entry.key == "location" else entry.value
    source.write_bytes(proto.SerializeToString())
    before = weights(source)
    files.save(Model.of(source), path)
    assert weights(source) == before == weights(path)


@pytest.mark.usefixtures("small_limit")
def test_data_of_another_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    onnx.save(chain(), path, save_as_external_data=True, location="shared.bin", size_threshold=0)
    files.save(Model.of(chain(seed=1)), path)
    assert names(tmp_path) == {"out.onnx", "out.onnx.data", "shared.bin"}


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
