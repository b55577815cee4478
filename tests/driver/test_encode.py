"""Encoding and decoding as users meet them: the functions and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxprune
from codec import planted, same
from command import complaints, names, refused, shell, within
from nets import parse
from onnxprune.driver import encode
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Decode, Encode
from onnxprune.passes.encode import EncodedModel
from onnxprune.verify.verdicts import Verdict

NET = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small digits network, 90 % of whose large weights are zero."""
    proto = onnx.load(NET)
    for seed, tensor in enumerate(proto.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1 and array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(planted(array.shape, 0.1, seed=seed) / 40, tensor.name))
    path = tmp_path / "sparse.onnx"
    onnx.save(proto, path)
    return path


def test_encode_then_decode(model: Path, tmp_path: Path) -> None:
    small = onnxprune.encode(model)
    small.save(tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < 0.3 * model.stat().st_size
    dense = onnxprune.decode(tmp_path / "small.onnx")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in dense.model.graph.initializer}
    for tensor in onnx.load(model).graph.initializer:
        assert same(tensors[tensor.name], numpy_helper.to_array(tensor))
    assert all(row.encoding == "dense" for row in dense.weights)


def test_the_report_adds_up(model: Path) -> None:
    done = onnxprune.encode(model)
    found = done.to_dict()
    assert found["stored_bytes"] + found["rest_bytes"] < done.model.ByteSize() < found["dense_bytes"] + found["rest_bytes"]
    assert found["dense_bytes"] + found["rest_bytes"] == pytest.approx(model.stat().st_size, rel=0.02)
    assert found["bound_bytes"] < found["stored_bytes"]
    assert found["sparsity"] == pytest.approx(0.9, abs=0.03)
    assert found["notes"] == []


def test_large_weights_are_told_of(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "FOLDED", 20000)
    [note] = onnxprune.encode(model).notes
    assert "does not fold" in note


def test_survey_says_how_weights_are_stored(model: Path) -> None:
    for encoding, known in (("auto", {"delta", "bitmask"}), ("bitmask", {"bitmask"}), ("coo", {"coo"}), ("dense", {"dense"})):
        rows = encode.survey(onnxprune.encode(model, encoding).model)
        found = {row.encoding for row in rows if row.sparsity > 0.5 and row.dense > 20000}
        assert found
        assert found <= known
        assert not any(row.name.startswith("sp") for row in rows), "payloads are no weights"
    assert sum(row.dense for row in rows) == sum(row.dense for row in encode.survey(model))


def test_a_bad_name_is_refused(model: Path) -> None:
    with pytest.raises(OptionError, match="--encoding 'zip': there are auto, bitmask"):
        onnxprune.encode(model, "zip")


def test_commands(model: Path, tmp_path: Path) -> None:
    done = shell("encode", model, "-o", tmp_path / "small.onnx")
    assert (done.status, complaints(done)) == (0, "")
    assert "encoded" in done.out
    assert "entropy bound" in done.out
    back = within("decode", "small.onnx", "-o", "dense.onnx", "--json", cwd=tmp_path)
    assert back.status == 0
    assert json.loads(back.out)["bytes"] == (tmp_path / "dense.onnx").stat().st_size
    assert names(tmp_path) == {"sparse.onnx", "small.onnx", "dense.onnx"}


def test_json(model: Path, tmp_path: Path) -> None:
    found = within("encode", model, "-o", "small.onnx", "--mode", "fast", "--json", "--measure", cwd=tmp_path).json()
    assert found["bytes"] == (tmp_path / "small.onnx").stat().st_size
    assert set(found["compressed"]["gzip"]) == {"dense", "output"}
    assert [row["label"] for row in found["benchmark"]["rows"]] == ["original", "encoded"]
    assert {row["encoding"] for row in found["weights"]} <= {"dense", "delta8", "delta16"}


def test_inspect_shows_zeros_and_patterns(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    tensor = next(t for t in proto.graph.initializer if list(t.dims)[:2] == [32, 32])
    array = np.tile(np.array([1, 2, 0, 0], np.float32), 8 * 32 * 9).reshape(32, *tensor.dims[2:], 32)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(array, -1, 1)), tensor.name))
    onnx.save(proto, tmp_path / "m24.onnx")
    done = within("inspect", "m24.onnx", cwd=tmp_path)
    assert "weights with zeros" in done.out
    assert any(tensor.name in line and "2:4" in line for line in done.out.splitlines())
    rows = within("inspect", "m24.onnx", "--json", cwd=tmp_path).json()["sparsity"]["weights"]
    assert {row["name"]: row["pattern"] for row in rows}[tensor.name] == "2:4"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--encoding", "zip", ("--encoding 'zip'", "bitmask")), ("--mode", "slow", ("--mode 'slow'", "fast"))],
)
def test_bad_options_write_nothing(model: Path, tmp_path: Path, option: str, value: str, words: tuple[str, ...]) -> None:
    refused(within("encode", model, "-o", "small.onnx", option, value, cwd=tmp_path), 2, *words)
    assert names(tmp_path) == {"sparse.onnx"}


def test_a_single_number_is_no_weight_with_zeros() -> None:
    model = parse("(float[N,2] x) => (float[N,2] y) <float[2] w = {0, 1}, float s = {0}> { a = Mul(x, w) y = Add(a, s) }")
    assert [row.name for row in encode.survey(model)] == ["w"]


def spoilt(model: Model) -> Model:
    """The largest constant is other than it was."""
    name = max((name for name, weight in model.weights.items() if weight.is_float), key=lambda name: model.weights[name].size)
    model.weights[name] = Weight(name, None, model.weights[name].array() * np.float32(1.01))
    return model


def test_what_is_written_is_proven_and_a_fault_is_caught(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = onnxprune.encode(model, require_proof=True)
    back = onnxprune.decode(small.model, require_proof=True)
    for check in (small.verification, back.verification):
        assert check.runs == 3
        assert not check.untested
    right, decoded = Encode.run, Decode.run

    def wrong(self: Encode, given: Model) -> EncodedModel:
        found = right(self, given)
        return EncodedModel(spoilt(found.model), found.weights)

    monkeypatch.setattr(Encode, "run", lambda self, given, _: wrong(self, given))
    with pytest.raises(VerificationError, match="encoded, it computes something else than the file"):
        onnxprune.encode(model)
    monkeypatch.setattr(Decode, "run", lambda self, given: spoilt(decoded(self, given)))
    with pytest.raises(VerificationError, match="decoded, it computes something else than the file"):
        onnxprune.decode(small.model)


def test_weights_that_are_wrong_by_little_are_seen(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding moves bits: what the tolerance of float32 would hide is a difference, too."""
    run = Encode.run

    def wrong(self: Encode, given: Model, *args: Any) -> EncodedModel:
        changed = given.copy()
        name = next(name for name, weight in changed.weights.items() if weight.is_float and len(weight.shape) == 1)
        changed.weights[name] = Weight(name, None, changed.weights[name].array() * np.float32(1 + 1e-5))
        return run(self, changed, *args)

    monkeypatch.setattr(Encode, "run", wrong)
    with pytest.raises(VerificationError, match="encoded, it computes something else"):
        onnxprune.encode(model)


def test_a_branch_that_returns_a_constant_is_encoded() -> None:
    text = """(float[N,64] x, bool c) => (float[N,64] y) <float[64,64] w> {
      b = If (c) <then_branch = yes () => (float[64] p) { p = Constant<value_floats = [1.0, 2.0]>() },
                  else_branch = no () => (float[64] q) { q = Constant<value_floats = [3.0, 4.0]>() }>
      a = MatMul(x, w)
      y = Add(a, b)
    }""".replace("[1.0, 2.0]", str([1.0] * 64)).replace("[3.0, 4.0]", str([0.5] * 64))
    source = parse(text)
    source.graph.initializer[0].CopyFrom(numpy_helper.from_array(planted((64, 64), 0.1, seed=1) / 40, "w"))
    done = onnxprune.encode(source)
    assert done.verification.ok
    assert done.verification.runs
    assert not done.verification.untested


@pytest.mark.parametrize("encoding", ["auto", "coo"])
def test_an_output_that_does_not_move_with_encoded_weights_is_not_tested(encoding: str) -> None:
    """Sparse tensors are weights, too: an output that hides them says nothing of them."""
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[N, 64] x) => (float[N, 64] y, float[N, 64] z) {
          y = MatMul (x, w)
          none = Sub (x, x)
          z = MatMul (none, w)
        }"""
    )
    array = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    array.reshape(-1)[: 64 * 56] = 0
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    verdicts = {one.output: one.verdict for one in onnxprune.encode(proto, encoding).verification.outputs}
    assert verdicts == {"y": Verdict.PROVEN, "z": Verdict.NOT_TESTED}
    with pytest.raises(VerificationError, match="output 'z' was not tested"):
        onnxprune.encode(proto, encoding, require_proof=True)


def test_a_survey_of_an_encoded_file_says_the_bytes_that_its_weights_take() -> None:
    """As encode said them, up to the masks' last bytes; all together they are those of the constants."""
    rng = np.random.default_rng(0)
    model = parse("(float[N,64] x) => (float[N,8] z) <float[64,96] u, float[96,8] v> { y = MatMul(x, u) z = MatMul(y, v) }")
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight).copy()
        array[rng.random(array.shape) < 0.8] = 0
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    done = encode.encode(model, "bitmask")
    said = {row.name: row.stored for row in done.weights}
    for row in encode.survey(done.model):
        assert row.encoding == "bitmask"
        assert row.stored == pytest.approx(said[row.name], rel=0.1)
