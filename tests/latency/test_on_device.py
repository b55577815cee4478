"""What runs on a device: it goes on where it was, keeps devices apart, and says in one line what is wrong."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.latency import on_device
from onnxprune.latency.cache import LatencyCache, read_table
from onnxprune.latency.measurements import Timings
from onnxprune.latency.on_device import main, measure, read_shapes
from onnxprune.latency.worklist import shapes_file


def layer(size: int, op: str = "Add", kind: int = TensorProto.FLOAT) -> ModelProto:
    """x + w, with a constant that has no data and a dynamic first axis."""
    node = helper.make_node(op, ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", kind, ["d0", size])
    weight = TensorProto(name="w", data_type=kind, dims=[size])
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info("y", kind, None)], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"d0": "3"})
    return model


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Two layers and the whole of a model, of which one does not run."""
    path = tmp_path / "shapes.json"
    path.write_bytes(shapes_file("net.onnx", {"a": layer(4), "b": layer(8, "Nonsense")}, {"c": layer(9)}, "{}"))
    return path


def changed(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_every_model_gets_a_time_or_is_known_not_to_run(shapes: Path, tmp_path: Path) -> None:
    done = measure(shapes, tmp_path / "device.db")
    ((key, times),) = read_table(tmp_path / "device.db").items()
    assert json.loads(key)["threads"] == 1
    assert times["b"] is None
    assert all((times[name] or 0) > 0 for name in "ac")
    assert (done["models"], done["failed"], done["model"]) == (3, 1, "net.onnx")


def test_what_is_known_is_not_measured_again(shapes: Path, tmp_path: Path) -> None:
    measure(shapes, tmp_path / "device.db")
    before = read_table(tmp_path / "device.db")
    assert measure(shapes, tmp_path / "device.db")["timed"] == 0
    assert read_table(tmp_path / "device.db") == before


def test_an_interrupted_run_goes_on(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    command = [str(shapes), "-o", str(tmp_path / "device.db")]
    with monkeypatch.context() as patch:
        patch.setattr(on_device, "REPEATS", 0)
        patch.setattr(Timings, "settle", stop)
        assert main(command) == 130
    assert main(command) == 0
    assert len(next(iter(read_table(tmp_path / "device.db").values()))) == 4  # with the yardstick


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "INT8", "BFLOAT16"])
def test_constants_of_other_types_are_made(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "shapes.json"
    path.write_bytes(
        shapes_file("net.onnx", {"a": layer(4, "Identity" if kind == "x" else "Equal", getattr(TensorProto, kind))}, {}, "")
    )
    asked = read_shapes(path)
    assert bool(asked.layers["a"].constants) == (kind != "BFLOAT16")  # whose data are in the file


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    assert main([str(word) for word in command]) == 2
    said = capsys.readouterr()
    assert not said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("measure.py: ")]
    return line


def test_times_of_another_device_are_kept_apart(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "device.db"
    LatencyCache(table, "another machine").store({"a": 1.0})
    assert "times of another device or setting, another machine: name another file" in refused(capsys, shapes, "-o", table)
    assert read_table(table) == {"another machine": {"a": 1.0}}


def test_a_file_that_is_no_table_is_not_replaced(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no table of latencies" in refused(capsys, shapes, "-o", shapes)
    assert read_shapes(shapes).layers
    assert "a folder that is there" in refused(capsys, shapes, "-o", tmp_path / "nowhere" / "device.db")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"graphs": "x"},
        {"graphs": base64.b64encode(b"x").decode()},
        {"yardstick": None},
        {"layers": {"a": [0, 1]}},
        {"layers": {"a": [0, 1, [["w", 77, [1]]]]}},
        {"layers": {"a": [0, 1, [["w", 1, [-1]]]]}},
        {"layers": []},
    ],
)
def test_a_file_of_something_else_is_refused(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    said = refused(capsys, changed(shapes, **change), "-o", tmp_path / "device.db")
    assert ("version 99" if "format" in change else "no file of onnxprune latency shapes") in said
    assert not (tmp_path / "device.db").exists()


def test_what_cannot_be_read_is_told(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "device.db"
    assert "nothing.json" in refused(capsys, tmp_path / "nothing.json", "-o", table)
    shapes.write_text("[" * 100_000)
    assert "no file of onnxprune" in refused(capsys, shapes, "-o", table)


def test_providers_are_those_of_the_device(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has cpu" in refused(capsys, shapes, "-o", tmp_path / "t.db", "--provider", "nothing").replace("azure, ", "")
    assert "1 or more" in refused(capsys, shapes, "-o", tmp_path / "t.db", "--threads", 0)
    assert on_device._providers("xnnpack", ["XnnpackExecutionProvider", "CPUExecutionProvider"])[0] == "XnnpackExecutionProvider"
    three = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert on_device._providers("tensorrt", three) == three
    assert on_device._providers("cuda", three) == three[1:]


def test_a_runtime_that_runs_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shapes.json"
    path.write_bytes(shapes_file("net.onnx", {"b": layer(8, "Nonsense")}, {}, ""))
    assert "runs no model of it on cpu" in refused(capsys, path, "-o", tmp_path / "t.db")


def test_graphs_that_unpack_to_too_much_are_refused(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(shapes, graphs=base64.b64encode(zlib.compress(bytes(10**6))).decode())
    assert len(read_shapes(shapes).layers["a"].graph) > 50
    monkeypatch.setattr(on_device, "_LIMIT", 50)
    with pytest.raises(ValueError, match="no file of onnxprune latency shapes"):
        read_shapes(shapes)


def test_a_table_that_cannot_be_written_is_told(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(LatencyCache, "_open", full)
    with pytest.raises(OSError, match="cannot be written"):
        measure(shapes, tmp_path / "device.db")
