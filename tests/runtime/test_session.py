"""ONNX Runtime as the compiler uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from nets import NETS, parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.runtime.session import Session, evaluate, inference_session, random_feeds

OPSETS = [helper.make_opsetid("", 18)]


def test_weights_handed_over_are_the_weights() -> None:
    proto = parse(NETS["flatten"])  # w2 is large enough to be handed over, the others are copied
    x = {"x": np.ones((2, 3, 4, 4), np.float32)}
    (expected,) = inference_session(proto).run(None, x)
    (got,) = Session(Model.of(proto)).run(x)
    np.testing.assert_array_equal(got, expected)
    inner, again = Session(Model.of(proto), ["r", "y"]).run(x)
    assert inner.shape == (2, 6)
    np.testing.assert_allclose(again, expected, rtol=1e-6)


def test_what_does_not_load_is_named_in_one_line() -> None:
    model = parse(NETS["chain"])
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"^here\.onnx: ONNX Runtime does not load it: .*NoSuchOperator") as caught:
        inference_session(model, "here.onnx")
    assert "\n" not in str(caught.value)


def test_feeds_are_seeded_and_valid_as_indices() -> None:
    kinds = {
        "f": TensorProto.FLOAT,
        "h": TensorProto.FLOAT16,
        "d": TensorProto.DOUBLE,
        "i": TensorProto.INT64,
        "b": TensorProto.BOOL,
    }
    infos = [helper.make_tensor_value_info(name, kind, [64]) for name, kind in kinds.items()]
    infos.append(helper.make_tensor_value_info("s", TensorProto.STRING, [2]))
    shapes = {**dict.fromkeys(kinds, (64,)), "s": (2,)}
    one, again, other = (random_feeds(infos, shapes, seed) for seed in (0, 0, 1))
    for name, kind in kinds.items():
        assert one[name].dtype == helper.tensor_dtype_to_np_dtype(kind)
        np.testing.assert_array_equal(one[name], again[name])
        assert not np.array_equal(one[name], other[name])
    assert set(one["i"]) == {0, 1}
    assert abs(float(one["f"].mean())) < 0.5
    assert one["s"].tolist() == ["", ""]


def test_evaluate_gives_every_output() -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Split", ["c"], ["d", "e"], num_outputs=2)]
    constants = {"a": np.array([1, 2]), "b": np.array([10, 10]), "unused": np.zeros(3)}
    found = evaluate(ModelProto(ir_version=3, opset_import=OPSETS), nodes, constants)
    assert {name: array.tolist() for name, array in found.items()} == {"c": [11, 12], "d": [11], "e": [12]}


def test_one_node_that_cannot_be_computed_does_not_hide_the_others() -> None:
    nodes = [
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Reshape", ["a", "wrong"], ["c"]),
        helper.make_node("Neg", ["c"], ["d"]),
        helper.make_node("Abs", ["b"], ["e"]),
    ]
    constants = {"a": np.array([1.0, 2.0], np.float32), "wrong": np.array([5])}
    found = evaluate(ModelProto(ir_version=10, opset_import=OPSETS), nodes, constants)
    assert {name: array.tolist() for name, array in found.items()} == {"b": [-1, -2], "e": [1, 2]}


def test_onnxruntime_keeps_no_telemetry(tmp_path: Path) -> None:
    digits = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(digits.parents[1])}
    words = ("prune", digits, "-o", tmp_path / "out.onnx", "--target", "macs=0.5", "--no-benchmark")
    subprocess.run([sys.executable, "-m", "onnxprune", *map(str, words)], check=True, capture_output=True, env=env)
    assert [file.name for file in tmp_path.rglob("*")] == ["out.onnx"]


def test_one_node_that_cannot_be_computed_costs_few_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table has fewer rows than asked for; 63 other nodes are computed all the same."""
    nodes = [helper.make_node("Add", ["one", "one"], [f"v{number}"]) for number in range(63)]
    nodes.insert(20, helper.make_node("Gather", ["table", "far"], ["bad"]))
    constants = {"one": np.ones(1, np.int64), "table": np.ones((2, 3), np.int64), "far": np.array(9)}
    sessions: list[str] = []

    def counted(proto: ModelProto, name: str, *, optimize: bool) -> Any:
        sessions.append(name)
        return inference_session(proto, name, optimize=optimize)

    monkeypatch.setattr("onnxprune.runtime.session.inference_session", counted)
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = evaluate(model, nodes, constants)
    assert len(found) == 63
    assert "bad" not in found
    assert len(sessions) < 20
