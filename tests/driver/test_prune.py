"""prune(), analyze(), make_plan(): any source, never changed; a model that is what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from nets import GROUPS, HALF, parse, residual, residual_file
from nets import describe as lines
from onnxprune import (
    ModelError,
    OptionError,
    OutputError,
    Recipe,
    TargetError,
    analyze,
    apply,
    check,
    make_plan,
    prune,
)
from onnxprune.driver.prune import describe, sensitivity
from onnxprune.ir.model import Model
from onnxprune.verify.law import compare


def as_external(folder: Path) -> str:
    path = folder / "external.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return str(path)


def as_graph(folder: Path) -> gs.Graph:
    return gs.import_onnx(residual())


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": residual_file,
    "text": lambda folder: str(residual_file(folder)),
    "external": as_external,
    "proto": lambda _: residual(),
    "bytes": lambda _: residual().SerializeToString(),
    "graph": as_graph,
}


def state(source: Any, folder: Path) -> object:
    """Everything about a source that must not change."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if isinstance(source, ModelProto):
        return source.SerializeToString(deterministic=True), files
    if isinstance(source, gs.Graph):
        return gs.export_onnx(source).SerializeToString(deterministic=True), files
    return source, files


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_model_and_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)
    before = state(source, tmp_path)
    result = prune(source, HALF)
    assert state(source, tmp_path) == before
    expected = prune(residual(), HALF)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    for tensor in expected.model.graph.initializer:
        np.testing.assert_array_equal(weights[tensor.name], numpy_helper.to_array(tensor), tensor.name)
    assert result.plan.keep.keys() == expected.plan.keep.keys() == {"w0:0", "w1:0"}
    assert result.report.verification is not None
    assert result.report.verification.ok


@pytest.mark.parametrize("kind", SOURCES)
def test_no_other_function_changes_its_source_either(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)
    before = state(source, tmp_path)
    plan, _ = make_plan(source, HALF)
    small = apply(source, plan)
    apply(source, plan, masked=True)
    analyze(source)
    assert check(source, small, plan).ok
    assert state(source, tmp_path) == before


def test_the_result_is_a_valid_smaller_model() -> None:
    result = prune(residual(), HALF)
    onnx.checker.check_model(result.model, full_check=True)
    shapes = {tensor.name: list(tensor.dims) for tensor in result.model.graph.initializer}
    assert shapes == {"w0": [4, 3, 1, 1], "w1": [3, 4, 3, 3], "w2": [4, 3, 3, 3], "b2": [4], "w3": [4, 4, 1, 1]}
    assert result.model.graph.input == residual().graph.input
    assert result.model.graph.output == residual().graph.output
    assert lines(result.coupling) == GROUPS["residual"]


def test_prune_is_plan_and_apply() -> None:
    result = prune(residual(), HALF)
    plan, analysis = make_plan(residual(), HALF)
    assert lines(analysis.coupling) == GROUPS["residual"]
    assert {n: k.tolist() for n, k in plan.keep.items()} == {n: k.tolist() for n, k in result.plan.keep.items()}
    applied = apply(residual(), plan).to_proto()
    assert applied.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    assert compare(Model.of(applied), apply(residual(), plan, masked=True)).ok


def test_deterministic() -> None:
    recipe = Recipe(target="macs=0.6", align="1", criterion="random", seed=5)
    one, other = (prune(residual(), recipe).model.SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


def test_a_plan_is_signed_with_its_file(tmp_path: Path) -> None:
    path = residual_file(tmp_path)
    for plan in (prune(path, HALF).plan, make_plan(str(path), HALF)[0]):
        assert plan.file == "net.onnx"
        assert plan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert prune(residual(), HALF).plan.sha256 == ""


def test_save_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = prune(residual(), HALF)
    path = tmp_path / "small.onnx"
    result.save(path)
    assert onnx.load(path).SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    assert [found.name for found in tmp_path.iterdir()] == ["small.onnx"]
    with pytest.raises(OutputError, match="exists already: pass --force"):
        result.save(path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        result.save(path, force=True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.undo()
    result.save(str(path), force=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"not onnx", "<bytes>: not an ONNX model, or truncated"),
        ("nowhere.onnx", "nowhere.onnx: no such file"),
        (3, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_model(source: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prune(source)


def test_a_model_without_weights() -> None:
    with pytest.raises(ModelError, match="has no floating-point weights to rank channels by: a model without layers has no"):
        prune(parse("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"))
    with pytest.raises(ModelError, match="to rank channels by: prune the model before it is converted to integers"):
        prune(parse("(int8[N,4] x) => (int32[N,4] y) <int8[4,4] w> { y = MatMulInteger(x, w) }"))


def test_weights_that_are_not_finite() -> None:
    model = residual()
    array = np.full((6, 8, 3, 3), np.nan, np.float32)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "w1")
    tensor.CopyFrom(numpy_helper.from_array(array, "w1"))
    with pytest.raises(ModelError, match=r"'w1' of <model>, which node .* reads, has NaN or infinite weights"):
        prune(model, HALF)


def test_a_target_out_of_reach() -> None:
    with pytest.raises(TargetError, match=r"target macs=0.01 cannot be reached: at least macs=0\.\d+ remains"):
        prune(residual(), Recipe(target="macs=0.01", align="1"))


@pytest.mark.parametrize("fields", [{"target": "macs=2"}, {"criterion": "best"}, {"scope": "all"}, {"align": "0"}])
def test_recipes_without_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Recipe(**fields)


def test_protected_layers_stay() -> None:
    with pytest.raises(TargetError, match="no group that can be pruned"):
        prune(residual(), Recipe(target="channels=0.5", align="1", protect=("w1",)))


def test_describe_is_what_inspect_shows() -> None:
    data = describe(analyze(residual()))
    assert set(data) >= {"model", "opset", "cost", "groups", "refusals", "layers"}
    assert [group["id"] for group in data["groups"]] == ["w0:0", "w1:0"]
    assert sum(layer["macs"] for layer in data["layers"]) == data["cost"]["macs"]
    assert data["layers"][2]["axes"] == "n (g i) _ _, (g o) i _ _, (g o) -> n (g o) _ _"


def test_exports() -> None:
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onnxprune.nothing


@pytest.mark.parametrize("calib", [False, True])
def test_a_model_without_groups(calib: bool) -> None:
    model = parse("(float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> { y = Conv(x, w) }")
    samples = {"x": np.random.default_rng(0).random((8, 3, 8, 8), np.float32)}
    with pytest.raises(TargetError, match="cannot be reached: the model has no group that can be pruned"):
        prune(model, HALF, samples=samples if calib else None)
    with pytest.raises(TargetError, match="has no group that can be pruned; inspect says why"):
        sensitivity(model, samples)
