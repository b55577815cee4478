"""Weights that are shaken: constants, and what nodes make of constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from nets import parse
from onnxprune.driver.prune import prune
from onnxprune.ir.model import Model
from onnxprune.ir.precision import retyped
from onnxprune.ir.weights import Weight
from onnxprune.options.prune import Recipe
from onnxprune.runtime.session import inference_session
from onnxprune.verify.shaking import shaken, weights_that_count
from onnxprune.verify.verdicts import Verdict

MODEL = Model.of(
    parse("""(float[N,8] x) => (float[N,4] y) <float[8,8] w, float[8,4] v, float[8] b> {
      a = MatMul(x, w)
      h = Add(a, b)
      r = Relu(h)
      y = MatMul(r, v)
    }""")
)
MAKERS = {
    "filled": "w = ConstantOfShape<value = float[1] {0.25}>(square)",
    "expanded": "w = Expand(half, square)",
    "a product": "t = Tile(one, square)\n w = Mul(t, half)",
    "cast": "i = ConstantOfShape<value = int64[1] {3}>(square)\n w = Cast<to = 1>(i)",
    "of integers": "w = DequantizeLinear(eighths, half)",
}


def made(maker: str) -> Model:
    """A network whose only matrix nodes make."""
    model = Model.of(
        parse(f"""(float[N,8] x) => (float[N,8] y, float[N,8] z) <int64[2] square = {{8, 8}}, float half = {{0.5}},
        float[1,1] one = {{1}}, int8[8,8] eighths> {{
          {MAKERS[maker]}
          y = MatMul(x, w)
          z = Neg(x)
        }}""")
    )
    model.weights["eighths"] = Weight("eighths", None, np.arange(64, dtype=np.int8).reshape(8, 8))
    return model


def outputs(model: Model) -> list[np.ndarray]:
    dtype = np.float64 if model.inputs[0].type.tensor_type.elem_type == TensorProto.DOUBLE else np.float32
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(dtype)
    return [np.asarray(value) for value in inference_session(model.to_proto()).run(None, {"x": x})]


def test_shaken_weights_are_other_ones_and_no_multiple() -> None:
    weights = shaken(MODEL, {"w", "x", "nowhere"}).weights
    ratio = weights["w"].array() / MODEL.weights["w"].array()
    assert 0.5 <= ratio.min() < 0.7
    assert 1.3 < ratio.max() <= 1.5
    assert len(np.unique(ratio)) > 32
    assert weights["v"] is MODEL.weights["v"]


def test_matrices_count_where_there_are_any() -> None:
    assert weights_that_count(MODEL) == {"w", "v"}
    assert weights_that_count(Model.of(parse("(float[N,8] x) => (float[N,8] y) <float[8] b> { y = Add(x, b) }"))) == {"b"}


@pytest.mark.parametrize(
    ("maker", "to"),
    [*((maker, TensorProto.FLOAT) for maker in MAKERS), ("filled", TensorProto.DOUBLE), ("a product", TensorProto.DOUBLE)],
)
def test_what_nodes_make_counts_and_is_shaken(maker: str, to: int) -> None:
    model = made(maker) if to == TensorProto.FLOAT else retyped(made(maker), to)
    assert weights_that_count(model) == {"w"}
    moved = shaken(model, {"eighths"} if maker == "of integers" else {"w"})
    (y, z), (still, same), (again, _) = outputs(moved), outputs(model), outputs(moved)
    assert np.array_equal(z, same)
    assert np.array_equal(y, again)
    gaps = y - still
    assert (gaps.std(axis=1) > 0.01).all(), "columns are shaken by factors of their own"


def test_factors_have_the_type_of_what_they_multiply() -> None:
    text = """(float16[N,8] x) => (float16[N,8] y) <int64[2] square = {8, 8}, float half = {0.5}> {
      h = Cast<to = 10>(half)
      w = Expand(h, square)
      y = MatMul(x, w)
    }"""
    moved = shaken(Model.of(parse(text)), {"w"}).to_proto()
    onnx.checker.check_model(moved, full_check=True)
    assert [node.op_type for node in moved.graph.node] == ["Cast", "Expand", "RandomUniformLike", "Cast", "Mul", "MatMul"]


def test_what_is_made_of_weights_moves_with_these() -> None:
    text = """(float[N,8] x) => (float[N,8] y) <float[8,8] w, float half = {0.5}> {
      h = Mul(w, half)
      t = Transpose<perm = [1, 0]>(h)
      y = MatMul(x, t)
    }"""
    assert weights_that_count(Model.of(parse(text))) == {"w"}
    assert [node.op_type for node in shaken(Model.of(parse(text)), {"w"}).graph.node] == ["Mul", "Transpose", "MatMul"]


def test_weights_that_nodes_fill_are_tested() -> None:
    """All logits of a network whose weights are all equal are equal, whatever the input, and so is what Softmax makes of them."""
    text = """(float[N,16] x) => (float[N,8] y) <int64[2] first = {16, 32}, int64[2] last = {32, 8}> {
      w = ConstantOfShape<value = float[1] {0.02}>(first)
      v = ConstantOfShape<value = float[1] {0.02}>(last)
      a = MatMul(x, w)
      r = Relu(a)
      l = MatMul(r, v)
      y = Softmax<axis = 1>(l)
    }"""
    check = prune(parse(text), Recipe(target="channels=0.5", align="1", require_proof=True), agreement=False).report.verification
    assert check is not None
    assert [one.verdict for one in check.outputs] == [Verdict.PROVEN]
