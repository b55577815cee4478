"""Files with sparse kernels: both lives are proven, inspect shows them, decode and every other command read them as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from kernel_nets import NET, sparse
from onnxprune.driver import encode as storage
from onnxprune.driver import kernels, sparsifier
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.kernels import build, instruction_set, loading
from onnxprune.passes import UseKernels

needs_compiler = pytest.mark.skipif(not build.compiler(), reason="no C compiler")


@pytest.fixture(autouse=True)
def _always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what is faster here."""
    for module in (storage, sparsifier):
        monkeypatch.setattr(module, "OrtTimer", lambda: lambda models: [4.0, 1.0][: len(models)])


def weights(model: ModelProto) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


@needs_compiler
def test_encode_proves_both_lives_and_decode_gives_the_model_back() -> None:
    source = sparse(NET, height=4)
    plain, fast = onnxprune.encode(source), onnxprune.encode(source, kernels=True, require_proof=True)
    assert f"with sparse kernels ({instruction_set()}): the same" in fast.verification.notes[-1]
    first = fast.kernels[0]
    assert (first.operator, first.pattern) == ("SparseConvRelu", "4x1")
    assert fast.model.ByteSize() < plain.model.ByteSize() + 2000  # functions and the names in them; weights as they were
    decoded = onnxprune.decode(fast.model).model
    assert weights(decoded) == weights(onnxprune.decode(plain.model).model)
    assert sorted(node.op_type for node in decoded.graph.node) == sorted(node.op_type for node in source.graph.node)


@needs_compiler
def test_kernels_that_compute_something_else_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse(NET)
    found = UseKernels().run(Model.of(source)).model
    check = onnxprune.encode(source).verification
    wrong = Model.of(source)
    wrong.weights["three_bias"] = wrong.weights["three_bias"].derived((32,), lambda array: array + 1)
    monkeypatch.setattr(kernels, "inlined", lambda _: wrong)
    with pytest.raises(VerificationError, match="run by sparse kernels, it computes something else"):
        kernels.proven_with_kernels(found, check)


@needs_compiler
def test_inspect_shows_kernels_pattern_and_density(tmp_path: Path) -> None:
    path = tmp_path / "fast.onnx"
    onnxprune.encode(sparse(NET, height=2), kernels=True).save(path)
    rows = storage.describe(path)["kernels"]
    assert [row["operator"] for row in rows] == ["SparseConvRelu", "SparseConv", "SparseConvAddClip", "SparseGemm"]
    assert {row["pattern"] for row in rows} == {"2x1"}
    assert all(0.1 < row["stored"] < 0.3 for row in rows)
    assert storage.describe(onnx.load(path))["kernels"] == rows
    assert storage.describe(sparse(NET))["kernels"] == []


@needs_compiler
def test_sparsify_gives_layers_kernels() -> None:
    recipe = onnxprune.SparseRecipe(pattern="4x1", sparsity=0.8, ends=True, kernels=True, allocation="uniform")
    result = onnxprune.sparsify(sparse(NET, density=1.0), recipe)
    assert {layer.pattern for layer in result.report.kernels} == {"4x1"}
    assert any("with sparse kernels" in note for note in result.report.verification.notes)  # type: ignore[union-attr]
    assert {function.domain for function in result.model.functions} == {"onnxprune"}
    assert result.report.to_dict()["kernels"][0]["pattern"] == "4x1"


@needs_compiler
def test_benchmark_runs_the_kernels_and_says_so(tmp_path: Path) -> None:
    onnxprune.encode(sparse(NET), kernels=True).save(tmp_path / "fast.onnx")
    onnx.save(sparse(NET), tmp_path / "dense.onnx")
    dense, fast = onnxprune.benchmark(
        [tmp_path / "dense.onnx", tmp_path / "fast.onnx"], seconds=0.0, min_rounds=1, sessions=1
    ).rows
    assert f"by sparse kernels ({instruction_set()})" in fast.notes
    assert not any("kernels" in note for note in dense.notes)


def test_where_there_are_too_few_zeros_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "library", Path)
    result = onnxprune.encode(sparse(NET, density=0.9), kernels=True)
    assert result.kernels == ()
    assert any("no layer has a sparse kernel" in note for note in result.notes)


def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "compiler", list)
    monkeypatch.setattr(loading, "SOURCES", shutil.copytree(build.SOURCES, tmp_path / "src"))
    with pytest.raises(OptionError, match="there is no C compiler: install one, or run pip install ziglang"):
        onnxprune.encode(sparse(NET), kernels=True)


def test_outputs_of_other_shapes_are_computed_by_the_body_too() -> None:
    """Without the library the function runs at every size."""
    model = UseKernels().run(Model.of(sparse(NET))).model
    plain = kernels.inlined(model)
    assert not plain.proto.functions
    assert np.isin(["Conv", "Relu", "Add", "Clip", "Gemm"], [node.op_type for node in plain.graph.node]).all()


@needs_compiler
def test_verify_runs_the_kernels_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse(NET)
    result = onnxprune.prune(source, onnxprune.Recipe(target="channels=0.8", align=1))
    assert result.plan is not None
    fast = onnxprune.encode(result.model, kernels=True)
    assert fast.kernels
    fast.save(tmp_path / "fast.onnx")
    check = onnxprune.check(source, tmp_path / "fast.onnx", result.plan)
    assert check.ok
    assert "with sparse kernels" in check.notes[-1]
    monkeypatch.setattr(kernels, "library", _refuse)
    assert "not run by its sparse kernels: nothing compiles" in onnxprune.check(source, fast.model, result.plan).notes[-1]


def _refuse() -> Path:
    raise OptionError("nothing compiles")
