"""Int8: zeros stay zeros, what is excluded stays, and the result is encoded, inspected and pruned like any model."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

import onnxprune
from int8_nets import LAYERS, NET, net, samples, small
from onnxprune.data.samples import open_samples
from onnxprune.driver import encode, ort_quantizer
from onnxprune.driver.progress import Stages
from onnxprune.driver.quantize import Quantizer, quantize
from onnxprune.errors import VerificationError
from onnxprune.ir.history import history
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.options.quantize import RANGES, ROUNDINGS, QuantRecipe
from onnxprune.runtime.session import Session

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits.onnx"


def dequantized(model: Model) -> dict[str, tuple[Array, Array, Array]]:
    """For each quantised weight of a layer its integers, its scales and its zero points, shaped to go with it."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in model.weights:
            weight, scale, *point = (model.weights[name].array() for name in node.input)
            if weight.ndim > 1:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                along = [-1 if at == axis and scale.size > 1 else 1 for at in range(weight.ndim)]
                found[node.input[0]] = (weight, scale.reshape(along), point[0])
    return found


# Zeros


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    sparsity=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    spread=st.sampled_from([0.0, 3.0]),
    per_channel=st.booleans(),
    activations=st.sampled_from(["uint8", "int8"]),
    reduce_range=st.sampled_from(["yes", "no"]),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_zeros_stay_zeros_and_the_nearest_are_half_a_step_off(
    seed: int, sparsity: float, spread: float, per_channel: bool, activations: str, reduce_range: str, rounding: str
) -> None:
    proto = net(
        seed, sparsity, NET.replace("b = BatchNormalization (a, gain, shift, mean, variance)", "b = Identity (a)"), spread
    )
    fields = {"per_channel": per_channel, "activations": activations, "reduce_range": reduce_range, "rounding": rounding}
    result = quantize(proto, QuantRecipe(**fields), samples=samples(2), agreement=False)  # type: ignore[arg-type]
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = dequantized(result.compiled)
    assert found.keys() == set(LAYERS)
    for name, (weight, scale, point) in found.items():
        assert weight.dtype == np.int8
        assert not point.any()
        assert not weight[given[name] == 0].any()
        assert np.abs(weight.astype(np.int32)).max() <= (64 if reduce_range == "yes" else 127)
        assert rounding == "refit" or np.all(np.abs(weight * scale - given[name]) <= scale * 0.5001)
    assert result.report.zeros[0] == sum(int((given[name] == 0).sum()) for name in LAYERS) <= result.report.zeros[1]


def test_a_zero_that_does_not_stay_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ort_quantizer.Workshop.quantize

    def wrong(self: ort_quantizer.Workshop, *args: Any) -> Model:
        result = run(self, *args)
        weight = result.weights["second_quantized"]
        result.weights["second_quantized"] = weight.derived(weight.shape, np.ones_like)
        return result

    monkeypatch.setattr(ort_quantizer.Workshop, "quantize", wrong)
    with pytest.raises(onnxprune.VerificationError, match="second: a zero of it is not zero in int8"):
        small(net(sparsity=0.5), rounding="nearest")


# What becomes int8


def test_batch_normalisation_is_folded_and_layers_are_quantized() -> None:
    result = small(net(sparsity=0.5))
    report = result.report
    assert report.nodes == {"Conv": 2, "Add": 1, "Flatten": 1, "GlobalAveragePool": 1, "MatMul": 1, "Gemm": 1}
    assert report.kept == ()
    assert {node.op_type for node in result.compiled.graph.node}.isdisjoint({"BatchNormalization", "Relu"})
    onnx.checker.check_model(result.model, full_check=True)
    assert report.drift is not None
    assert report.drift.cosine > 0.99
    assert (report.weights, report.elements) == (4, 8 * 36 * 2 + 48 + 30)


def test_what_is_prepared_is_proven_equal_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding that computes something else is left out; what even so is not the file is not quantised."""
    check = small(net(), require_proof=True).report.verification
    assert check is not None
    assert [one.verdict for one in check.outputs] == ["proven"]  # ONNX Runtime folds the file in the same way
    prepare, plain = ort_quantizer.Workshop.prepare, ort_quantizer.Workshop.plain

    def wrong(model: Model) -> Model:
        name = next(name for name, weight in model.weights.items() if len(weight.shape) == 4)
        model.weights[name] = Weight(name, None, model.weights[name].array() * np.float32(1.01))
        return model

    monkeypatch.setattr(ort_quantizer.Workshop, "prepare", lambda *args, **options: wrong(prepare(*args, **options)))
    result = small(net())
    check = result.report.verification
    assert check is not None
    assert check.ok
    assert "nothing was folded before: <model>: prepared for int8, it computes something else than the file" in check.notes[-1]
    assert "BatchNormalization" in {node.op_type for node in result.model.graph.node}
    monkeypatch.setattr(ort_quantizer.Workshop, "plain", lambda *args: wrong(plain(*args)))
    with pytest.raises(VerificationError, match=r"prepared for int8, it computes something else than the file: 'y' .*\]$"):
        small(net())
    old = net(text=NET.replace("17", "12"))
    with pytest.raises(VerificationError, match=r"\]; export it again with operator set 17, or use --per-tensor$"):
        small(old)


def test_the_interface_and_the_description_stay() -> None:
    proto = net()
    proto.producer_name, proto.doc_string = "someone", "a network"
    proto.metadata_props.add(key="classes", value="five")
    result = small(proto).model
    assert list(result.graph.input) == list(proto.graph.input)
    assert list(result.graph.output) == list(proto.graph.output)
    assert (result.doc_string, result.graph.name) == ("a network", "net")
    assert history(result)[-1].producer == "someone"
    assert result.metadata_props[0] == proto.metadata_props[0]
    assert [(one.domain, one.version) for one in result.opset_import] == [("", 17)]


@pytest.mark.parametrize("method", RANGES)
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_every_method_finds_ranges(method: str, activations: str) -> None:
    report = small(net(), method=method, activations=activations).report
    assert report.drift is not None
    assert report.drift.cosine > 0.97


def test_a_percentile_leaves_outliers_out() -> None:
    feeds = samples()
    feeds["x"][0, 0, 0, 0] = 1000.0

    def step(**fields: Any) -> float:
        model = quantize(net(), QuantRecipe(**fields), samples=feeds, agreement=False).compiled
        (scale,) = {node.input[1] for node in model.graph.node if node.input[0] == "x"}
        return float(model.weights[scale].array())

    assert step(method="percentile", percentile=99.0) < step() / 50


def test_one_scale_for_the_whole_weight_if_asked_for() -> None:
    assert all(scale.size == 1 for _, scale, _ in dequantized(small(net(), per_channel=False).compiled).values())
    assert all(scale.size > 1 for _, scale, _ in dequantized(small(net()).compiled).values())


def test_reduced_weights_do_not_overflow_in_int8_kernels() -> None:
    assert QuantRecipe().reduced
    assert not QuantRecipe(activations="int8").reduced
    assert not QuantRecipe(reduce_range="no").reduced
    assert small(net()).report.arithmetic < 0.05


@pytest.mark.parametrize("glob", ["Gemm", "fourth", "four*", "last"])
def test_nodes_are_excluded_by_operator_weight_or_name(glob: str) -> None:
    proto = net()
    proto.graph.node[-1].name = "last"
    result = small(proto, exclude=(glob,))
    assert {**result.report.kept[0]} == {"node": "last", "op": "Gemm", "why": "excluded"}
    assert np.array_equal(result.compiled.weights["fourth"].array(), numpy_helper.to_array(proto.graph.initializer[8]))


def test_a_convolution_is_excluded_with_the_normalisation_folded_into_it() -> None:
    report = small(net(), exclude=("BatchNormalization",)).report
    assert [node["op"] for node in report.kept if node["why"] == "excluded"] == ["Conv"]


def test_widths_at_which_int8_is_slow_are_noted() -> None:
    text = NET.replace("c = Relu (b)", "c = Relu (b) s = Shape (c)")
    assert not [note for note in small(net(text=text)).report.notes if "no multiple of 4" in note]
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> n (float[N, 4, 8, 8] x) => (float[N, 6, 6, 6] y) {y = Conv (x, w)}'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((6, 4, 3, 3), np.float32), "w"))
    assert (
        "convolutions whose width is no multiple of 4, at which int8 is slow: 1; prune with --align 16"
        in small(proto).report.notes
    )


# What cannot be


def test_the_quantizer_is_quiet_and_what_it_warns_of_is_a_note(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = """n (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
        m = MatMul (x, k) z = LayerNormalization (m, w) y = LayerNormalization (z, v)
    }"""
    proto = parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.full(8, n, np.float32), name) for n, name in ((1, "w"), (2, "v")))
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(8, dtype=np.float32), "k"))
    handlers = list(logging.getLogger().handlers)
    report = small(proto, method="percentile").report
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger().handlers == handlers
    assert [note[:47] for note in report.notes if "ONNX" in note] == ["ONNX Runtime: Axis 1 is out-of-range for weight"]


# Afterwards


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, 80 % zeros, in int8."""
    feeds = {"image": np.random.default_rng(0).random((32, 1, 8, 8)).astype(np.float32)}
    model = onnxprune.sparsify(DIGITS, onnxprune.SparseRecipe("sparsity=0.8"), agreement=False).model
    path = tmp_path_factory.mktemp("sparse") / "int8.onnx"
    quantize(model, samples=feeds, agreement=False).save(path)
    return path


def test_a_sparse_model_is_smaller_encoded_and_decodes_to_the_bit(sparse: Path) -> None:
    dense, encoded = Model.of(sparse), onnxprune.encode(sparse)
    assert encoded.compiled.nbytes < 0.75 * dense.nbytes
    int8 = [row for row in encoded.weights if row.encoding != "dense" and row.dense > 1000]
    assert sum(row.stored for row in int8) < 0.45 * sum(row.dense for row in int8)
    decoded = onnxprune.decode(encoded.model).compiled
    assert decoded.weights.keys() == dense.weights.keys()
    assert all(np.array_equal(weight.array(), decoded.weights[name].array()) for name, weight in dense.weights.items())
    feeds = {"image": np.random.default_rng(1).random((4, 1, 8, 8)).astype(np.float32)}
    results = [Session(model, fuse=True).run(feeds)[0] for model in (dense, encoded.compiled)]
    assert np.array_equal(*results)


def test_it_is_inspected_and_pruned_again(sparse: Path) -> None:
    assert len(onnxprune.analyze(sparse).coupling.groups) == len(onnxprune.analyze(DIGITS).coupling.groups)
    listed = encode.describe(sparse)["weights"]
    assert not [row["name"] for row in listed if "zero_point" in row["name"]]
    report = onnxprune.prune(sparse, onnxprune.Recipe(target="macs=0.8", align="4")).report
    assert report.verification is not None
    assert report.verification.ok
    assert report.verification.error == 0
    assert report.obtained["macs"] <= 0.8


def test_the_command_writes_scores_and_reports(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", image=rng.random((32, 1, 8, 8)).astype(np.float32))
    words = [
        "quantize",
        DIGITS,
        "-o",
        tmp_path / "int8.onnx",
        "--calib",
        tmp_path / "calib.npz",
        "--eval",
        tmp_path / "calib.npz",
    ]
    command = [sys.executable, "-m", "onnxprune", *map(str, words), "--json", "--per-tensor", "--exclude", "Gemm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["bytes"] == (tmp_path / "int8.onnx").stat().st_size < 0.5 * DIGITS.stat().st_size
    assert report["score"]["metric"] == "agreement"
    assert report["recipe"]["per_channel"] is False
    assert {"node": "node_linear", "op": "Gemm", "why": "excluded"} in report["kept"]
    wrong = subprocess.run([*command[:-1], "Gem"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


# Several forms


@pytest.mark.parametrize("method", RANGES)
def test_forms_of_one_model_are_those_that_quantize_makes_alone(method: str) -> None:
    """Ranges are measured once, and kept."""
    model, recipe = Model.of(net()), QuantRecipe(method=method)
    given = open_samples(samples(), model.inputs)
    with Quantizer(model, recipe, given, Stages()) as quantizer:
        forms = [quantizer.written(exclude).model.to_proto().graph for exclude in ((), ("second",), ())]
    excluding = dataclasses.replace(recipe, exclude=("second",))
    alone = [quantize(model, one, samples=samples(), agreement=False).model.graph for one in (recipe, excluding, recipe)]
    assert forms == alone
    assert forms[0] != forms[1]


def test_the_folder_of_a_quantizer_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = Model.of(net())
    with Quantizer(model, QuantRecipe(), open_samples(samples(), model.inputs), Stages()) as quantizer:
        quantizer.form(())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
