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
from onnxprune.data.samples import open_samples
from onnxprune.driver import encode as storage
from onnxprune.driver import kernels, sparsifier
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.kernels import build, instruction_set, library, loading
from onnxprune.passes import UseKernels
from onnxprune.sparse.kernel_nodes import DOMAIN

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


def test_what_kernels_compute_can_be_taken_apart_and_fused_again() -> None:
    """Every node that a kernel stands for has a name, so that a step can leave it alone."""
    model = UseKernels().run(Model.of(sparse(NET))).model
    given = [node.name or node.output[0] for node in model.graph.node if node.domain == DOMAIN]
    apart = kernels.apart(model)
    assert not apart.model.proto.functions
    assert list(apart.chains) == given
    operators = {node.name: node.op_type for node in apart.model.graph.node}
    assert [[operators[name] for name in chain] for chain in apart.chains.values()] == [
        ["Relu", "Conv"],
        ["Conv"],
        ["Clip", "Add", "Conv"],
        ["Gemm"],
    ]
    again = apart.fused(apart.model)
    assert [node.op_type for node in again.graph.node if node.domain == DOMAIN] == [
        node.op_type for node in model.graph.node if node.domain == DOMAIN
    ]
    plain = Model.of(sparse(NET))
    assert kernels.apart(plain).model is plain
    assert kernels.apart(plain).fused(plain) is plain


@needs_compiler
def test_kernels_that_change_outputs_by_more_than_int8_does_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = UseKernels().run(Model.of(sparse(NET))).model
    samples = open_samples({"x": np.random.default_rng(0).standard_normal((8, 16, 9, 9)).astype(np.float32)}, model.inputs)
    near = Model.of(sparse(NET))
    near.weights["last_bias"] = near.weights["last_bias"].derived((24,), lambda array: array + np.float32(1e-2))
    assert kernels.gap_in_int8(model, near, samples) < 1e-5
    wrong = Model.of(sparse(NET))
    wrong.weights["last_bias"] = wrong.weights["last_bias"].derived((24,), lambda array: array + 1)
    monkeypatch.setattr(kernels, "inlined", lambda _: wrong)
    with pytest.raises(VerificationError, match=r"change its outputs in int8 by \d.*, and int8 itself by .*leave --kernels out"):
        kernels.gap_in_int8(model, near, samples)


@needs_compiler
def test_sessions_that_have_the_library_already_are_timed(tmp_path: Path) -> None:
    onnxprune.encode(sparse(NET), kernels=True).save(tmp_path / "fast.onnx")
    with onnxprune.custom_operators(library()):
        row = onnxprune.benchmark([tmp_path / "fast.onnx"], seconds=0.0, min_rounds=1, sessions=1).rows[0]
    assert any("by sparse kernels" in note for note in row.notes)
