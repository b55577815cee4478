"""Other floating-point types than float32: copies in float32, and whole models that are pruned and proven in each type."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

import digits
from nets import NETS, both, parse, some
from onnxprune import ModelError, Recipe, apply, check, make_plan, prune
from onnxprune.driver.prune import analyze
from onnxprune.ir import precision
from onnxprune.ir.model import Model
from onnxprune.ir.precision import _type_fields, as_float32, feeds_as_float32, float_types
from onnxprune.ir.weights import Weight
from onnxprune.runtime.partition import run_for_shapes
from onnxprune.runtime.session import Session, inference_session, random_feeds
from onnxprune.verify.drift import measure_drift
from onnxprune.verify.law import compare

FOLDER = Path(digits.__file__).resolve().parent
TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}


def retyped(source: ModelProto, to: int) -> ModelProto:
    """The model with another type in the place of float32."""
    model = ModelProto()
    model.CopyFrom(source)
    for message, name in list(_type_fields(model)):
        if getattr(message, name) != TensorProto.FLOAT or (isinstance(message, AttributeProto) and message.name != "to"):
            continue
        if isinstance(message, TensorProto):
            array = numpy_helper.to_array(message).astype(helper.tensor_dtype_to_np_dtype(to))
            message.CopyFrom(numpy_helper.from_array(array, message.name))
        else:
            setattr(message, name, to)
    return model


# --- Copies ----------------------------------------------------------------------------------------------------------

EVERYWHERE = """
<ir_version: 10, opset_import: ["": 18, "mine": 1]>
net (float16[N,4] x, bool b) => (float16[N,4] y, seq(bfloat16[N,4]) s) <float16[N,4] v> {
  e = EyeLike<dtype = 11>(x)
  d = CastLike(e, x)
  w = Constant<value = double[1] {0.5}>()
  h = Cast<to = 10>(w)
  v = If (b) <
    then_branch = one () => (float16[N,4] a) <float16[4] c = {15360, 16384, 16896, 17408}> { a = Add(x, c) },
    else_branch = two () => (float16[N,4] a) { k = Constant<value = float16[1] {16896}>() a = Mul(x, k) }
  >
  f = mine.scaled(v, h)
  y = Sub(f, d)
  i = Cast<to = 16>(y)
  s = SequenceConstruct(i)
}
<domain: "mine", opset_import: ["": 18]>
scaled (p, q) => (r) { one = Constant<value = float16[1] {15360}>() t = Add(p, one) r = Mul(t, q) }
"""
"""A type in every place that spells one; the text spells float16 by its bits: 1 is 15360, 2 16384, 3 16896, 4 17408."""


def everywhere() -> ModelProto:
    return onnx.parser.parse_model(EVERYWHERE)


def test_every_type_is_found_wherever_it_stands() -> None:
    model = Model.of(everywhere())
    assert float_types(model) == {"float16", "bfloat16", "float64"}
    assert float_types(Model.of(parse(NETS["chain"]))) == {"float32"}
    assert float_types(Model.of(parse("(int64[2] x) => (int64[2] y) { y = Neg(x) }"))) == set()


def test_a_copy_has_no_other_type_and_its_source_keeps_them() -> None:
    source = Model.of(everywhere())
    before = source.to_proto()
    copy = as_float32(source)
    assert float_types(copy) == {"float32"}
    assert source.to_proto() == before
    onnx.checker.check_model(copy.to_proto(), full_check=True)
    for b in (True, False):
        x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
        y, (s,) = Session(copy).run({"x": x, "b": np.array(b)})
        np.testing.assert_allclose(y, ((x + np.arange(1, 5) if b else x * 3) + 1) / 2 - np.eye(2, 4), rtol=1e-6)
        np.testing.assert_array_equal(s, y)


@pytest.mark.parametrize("kind", TYPES)
def test_the_values_of_a_copy_are_those_of_the_weights(kind: str) -> None:
    model = Model.of(retyped(parse(NETS["attention"], 22), TYPES[kind]))
    copy = as_float32(model)
    for name, weight in model.weights.items():
        assert copy.weights[name].shape == weight.shape
        np.testing.assert_allclose(copy.weights[name].array(), weight.array().astype(np.float64), rtol=1e-7)


def test_types_that_nodes_imply_are_changed_too() -> None:
    """A float64 model with one float32 value inside does not load."""
    text = "(float[3] x, bool b) => (float[3] y) { n = Shape(x) z = ConstantOfShape(n) c = Constant<value_float = 2.0>() "
    text += "v = If (b) < then_branch = one () => (float[3] a) { a = ConstantOfShape(n) }, else_branch = two () => (float[3] a) "
    text += "{ k = Constant<value_floats = [1.0, 2.0, 3.0]>() a = Add(x, k) } > t = Squeeze(n) "
    text += "u = HannWindow(t) s = Sum(z, v, u) y = Mul(s, c) }"
    source = Model.of(parse(text))
    feeds = {"x": np.arange(3.0, dtype=np.float32), "b": np.array(False)}
    (expected,) = Session(source).run(feeds)
    (found,) = Session(precision.retyped(source, TensorProto.DOUBLE)).run(feeds | {"x": feeds["x"].astype(np.float64)})
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_float32_cannot_hold_stays_finite_and_infinities_stay() -> None:
    feeds = {"x": np.array([1e300, -1e300, np.inf, -np.inf, 1, np.nan]), "i": np.array([2**60])}
    found = feeds_as_float32(feeds)
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(found["x"], np.array([largest, -largest, np.inf, -np.inf, 1, np.nan], np.float32))
    assert found["x"].dtype == np.float32
    assert found["i"] is feeds["i"]


def test_no_weight_is_read_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.of(retyped(parse(NETS["chain"]), TensorProto.FLOAT16))
    monkeypatch.setattr(Weight, "array", None)
    assert {weight.dtype for weight in as_float32(model).weights.values()} == {TensorProto.FLOAT}


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


def test_bfloat16_weights_are_handed_over() -> None:
    model = parse("(float[N,64] x) => (float[N,64] y) <bfloat16[64,64] w> { v = Cast<to = 1>(w) y = MatMul(x, v) }")
    x = np.ones((1, 64), np.float32)
    (got,) = Session(Model.of(model)).run({"x": x})
    (expected,) = inference_session(model).run(None, {"x": x})
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("text", ["(bfloat16[2] x) => (float[2] y)", "(float[2] x) => (bfloat16[2] y)"])
def test_an_interface_that_python_has_no_arrays_for(text: str) -> None:
    model = parse(f"{text} {{ y = Cast<to = {1 if '(float' in text.partition('>')[2] else 16}>(x) }}")
    with pytest.raises(ModelError, match=r"<model>: ONNX Runtime cannot pass '[xy]' in bfloat16 to or from Python"):
        Session(Model.of(model))


def test_a_bfloat16_model_with_an_operator_that_inference_does_not_know_has_shapes() -> None:
    model = parse(
        "(bfloat16[N,4] x) => (bfloat16[N,4] y) { h = com.microsoft.Gelu(x) y = Identity(h) }", domains=["com.microsoft"]
    )
    assert run_for_shapes(Model.of(model), {"x": (3, 4)}, ["h"]) == {"h": (3, 4)}


def test_bfloat16_constants_are_folded() -> None:
    model = parse("""(float[N,8] x) => (float[N,4] y) <bfloat16[6,8] w, float[6,4] v> {
      t = Transpose<perm = [1,0]>(w)
      f = Cast<to = 1>(t)
      h = MatMul(x, f)
      y = MatMul(h, v)
    }""")
    found = analyze(model)
    assert [node.op_type for node in found.model.graph.node] == ["Cast", "MatMul", "MatMul"]
    weight = found.model.weights["t"]
    assert weight.array().dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weight.array(), numpy_helper.to_array(model.graph.initializer[0]).T)


# --- Whole models ----------------------------------------------------------------------------------------------------

HALVES = Recipe(target="channels=0.5", align="1")


def prove(model: ModelProto, recipe: Recipe = HALVES) -> tuple[str, ...]:
    """Prune a model: proven, nothing frozen, of the same types, still valid. The notes of the proof."""
    result = prune(model, recipe)
    outcome = result.report.verification
    assert outcome is not None
    assert outcome.ok
    assert outcome.runs == 3
    assert not result.report.frozen
    assert result.report.obtained["channels"] < 0.9
    assert result.report.drift is not None
    assert np.isfinite(result.report.drift.cosine)
    assert float_types(result.compiled) == float_types(Model.of(model))
    assert {w.name: w.dtype for w in result.compiled.weights.values()}.items() >= {
        tensor.name: tensor.data_type for tensor in model.graph.initializer if tensor.name in result.compiled.weights
    }.items()
    onnx.checker.check_model(result.model, full_check=True)
    return outcome.notes


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", NETS)
def test_nets_in_each_type(name: str, kind: str) -> None:
    prove(retyped(parse(NETS[name], 22), TYPES[kind]))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.onnx")))
def test_digits_in_each_type(file: str, kind: str) -> None:
    model = onnx.version_converter.convert_version(onnx.load(FOLDER / file), 22)
    notes = prove(retyped(model, TYPES[kind]), Recipe(target="macs=0.5", align="4"))
    if kind != "float16":
        assert notes[0].startswith("compared as float32 copies: ")
        assert "Could not find an implementation for Conv(22)" in notes[0]


MIXED = {
    "half between normalisations": """(float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float16[8,3,3,3] w1, float[8] scale, float[8] bias, float[8] mean, float[8] var, float16[6,8,1,1] w2, float[4,6,1,1] w3> {
      xh = Cast<to = 10>(x)
      a = Conv(xh, w1)
      f = Cast<to = 1>(a)
      n = BatchNormalization(f, scale, bias, mean, var)
      h = Cast<to = 10>(n)
      r = Relu(h)
      c = Conv<pads = [1,1,1,1]>(r, w2)
      d = Cast<to = 1>(c)
      y = Conv(d, w3)
    }""",
    "bfloat16 weights": """(float[N,8] x) => (float[N,4] y) <bfloat16[8,40] w1, bfloat16[40,40] w2, bfloat16[40,4] w3> {
      f1 = Cast<to = 1>(w1)
      a = MatMul(x, f1)
      r = Relu(a)
      f2 = Cast<to = 1>(w2)
      b = MatMul(r, f2)
      t = Tanh(b)
      f3 = Cast<to = 1>(w3)
      y = MatMul(t, f3)
    }""",
    "bfloat16 inside": """(float[N,8] x) => (float[N,4] y) <bfloat16[8,12] w1, bfloat16[12] b1, float[12,4] w2> {
      h = Cast<to = 16>(x)
      a = MatMul(h, w1)
      c = Add(a, b1)
      r = Relu(c)
      f = Cast<to = 1>(r)
      y = MatMul(f, w2)
    }""",
    "half, like another": """(float16[N,8] x) => (float16[N,4] y) <float[8,12] w1, float16[12,4] w2> {
      f = Cast<to = 1>(x)
      a = MatMul(f, w1)
      s = Sigmoid(a)
      h = CastLike(s, x)
      y = MatMul(h, w2)
    }""",
    "double statistics": """(float[N,5,8] x) => (float[N,5,4] y) <float[8,12] w1, double[12,6] w2, double[6] s, float[6,4] w3> {
      a = MatMul(x, w1)
      d = Cast<to = 11>(a)
      b = MatMul(d, w2)
      n = LayerNormalization(b, s)
      f = Cast<to = 1>(n)
      y = MatMul(f, w3)
    }""",
    "double output": """(float[N,8] x) => (double[N,4] y) <float[8,12] w1, float[12,4] w2> {
      a = MatMul(x, w1)
      b = MatMul(a, w2)
      y = Cast<to = 11>(b)
    }""",
    "recurrent half": """(float16[5,N,4] x) => (float16[5,1,N,3] y)
    <float16[1,24,4] w, float16[1,24,6] r, float16[6,3] v> {
      h, l = LSTM<hidden_size = 6>(x, w, r)
      y = MatMul(h, v)
    }""",
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_types(name: str) -> None:
    prove(parse(MIXED[name], 22))


def test_a_model_that_was_converted_to_half_around_float32_nodes() -> None:
    model = convert_float_to_float16(onnx.load(FOLDER / "digits__bn.onnx"), keep_io_types=True, op_block_list=["Relu", "Gemm"])
    del model.graph.value_info[:]  # still in float32
    prove(model, Recipe(target="macs=0.5", align="4"))


# --- What the proof sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["chain", "attention", "residual"])
def test_every_single_wrong_position_is_seen(name: str, kind: str) -> None:
    found = analyze(retyped(parse(NETS[name], 22), TYPES[kind]))
    for group in found.coupling.groups:
        pruned, _ = both(found, {group.id: list(range(group.size - 1))})
        _, masked = both(found, {group.id: list(range(1, group.size))})
        assert not compare(pruned, masked).ok


@pytest.mark.parametrize("kind", TYPES)
def test_an_error_below_the_tolerance_of_the_type_is_seen(kind: str) -> None:
    found = analyze(retyped(parse(NETS["flatten"], 22), TYPES[kind]))
    pruned, masked = both(found, {"w1:0": some(8)})
    assert compare(pruned, masked).ok
    weight = pruned.weights["w3"]
    pruned.weights["w3"] = weight.derived(weight.shape, lambda array: (array * np.float32(1.008)).astype(array.dtype))
    outcome = compare(pruned, masked)
    assert not outcome.ok
    assert 1e-3 < outcome.error < 2e-2  # half precision rounds the factor
    assert bool(outcome.notes) == (kind != "float64" or "Conv" in outcome.notes[0])


def test_what_runs_in_no_type_is_named_in_its_own() -> None:
    model = retyped(parse(NETS["chain"], 22), TensorProto.BFLOAT16)
    model.graph.node[2].op_type = "NoSuchOperator"
    outcome = compare(Model.of(model), Model.of(model))
    assert (outcome.ok, outcome.notes) == (False, ())
    assert "NoSuchOperator" in outcome.text
    with pytest.raises(ModelError, match="NoSuchOperator"):
        measure_drift(Model.of(model), Model.of(model), None)


@pytest.mark.parametrize("kind", TYPES)
def test_the_commands_take_each_type(kind: str, tmp_path: Path) -> None:
    source, small, zeros = (tmp_path / f"{name}.onnx" for name in ("source", "small", "zeros"))
    model = retyped(parse(NETS["residual"], 22), TYPES[kind])
    onnx.save(model, source)
    chosen, _ = make_plan(source, HALVES)
    for path, masked in ((small, False), (zeros, True)):
        made = apply(source, chosen, masked=masked)
        path.write_bytes(made.to_proto().SerializeToString())
        assert check(source, path, chosen).ok
    samples = random_feeds(model.graph.input, {"x": (3, 3, 8, 8)}, 0)
    result = prune(source, HALVES, samples={"x": samples["x"].astype(np.float32)})
    assert result.report.drift is not None
    assert result.report.drift.source.startswith("samples")
    assert np.isfinite(result.report.drift.cosine)
