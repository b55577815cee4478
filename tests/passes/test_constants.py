"""Each constant is stored once, and what callers may override is none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nets import assert_same_values, parse
from onnxprune import Recipe, SparseRecipe, prune, sparsify
from onnxprune.driver.encode import encode
from onnxprune.driver.prune import analyze
from onnxprune.driver.quantize import quantize
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.passes import Normalize

HALF = Recipe(target="channels=0.5", align="1")

LAYERS = """(float[N,8] x) => (float[N,8] y) <float[8,16] w, float[16,8] v> {{
  {w2} {v2}
  a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Relu(c)
  e = MatMul(d, {w}) f = Relu(e) y = MatMul(f, {v})
}}"""

SHARED = {
    "by name": LAYERS.format(w2="", v2="", w="w", v="v"),
    "Identity": LAYERS.format(w2="w2 = Identity(w) w3 = Identity(w2)", v2="v2 = Identity(v)", w="w3", v="v2"),
    "Transpose": """(int64[N] i) => (float[N,32] y) <float[32,16] table, float[16,12] w, float[12,16] v> {
      t = Transpose<perm = [1, 0]>(table)
      x = Gather(table, i) a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) y = MatMul(c, t)
    }""",
    "equal nodes": """(float[N,8] x) => (float[N,8] y) <float[16,8] w, float[16,8] v> {
      t1 = Transpose<perm = [1, 0]>(w) t2 = Transpose<perm = [1, 0]>(w)
      a = MatMul(x, t1) b = Relu(a) c = MatMul(b, v) d = Relu(c) e = MatMul(d, t2) f = Relu(e) y = MatMul(f, v)
    }""",
    "in a body": """(float[N,8] x, bool p) => (float[N,8] y) <float[8,16] w, float[16,8] v> {
      a = MatMul(x, w) b = Relu(a) c = MatMul(b, v)
      y = If (p) <
        then_branch = g () => (float[N,8] s) { w2 = Identity(w) d = MatMul(c, w2) e = Relu(d) s = MatMul(e, v) },
        else_branch = h () => (float[N,8] t) { t = Relu(c) }
      >
    }""",
}


def elements(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)


@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_stay_one(name: str) -> None:
    model = parse(SHARED[name])
    normal = Normalize().run(Model.of(model)).model
    assert elements(normal.to_proto()) == elements(model)
    assert_same_values(normal, Model.of(model))


@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_are_cut_once(name: str) -> None:
    model = parse(SHARED[name])
    result = prune(model, HALF)
    assert result.report.verification is not None
    assert result.report.verification.ok
    assert elements(result.model) < elements(model)


def test_a_copy_that_is_returned_stays() -> None:
    model = parse("(float[N,4] x) => (float[N,4] y, float[4,4] c) <float[4,4] w> { c = Identity(w) y = MatMul(x, w) }")
    normal = Normalize().run(Model.of(model)).model
    assert [value.name for value in normal.graph.output] == ["y", "c"]
    assert elements(normal.to_proto()) == elements(model)
    assert_same_values(normal, Model.of(model))


LISTED = """(float[N,6] x) => (float[N,3] y) <float[6,8] w, float[8] b, float[8,3] v> {
  a = Gemm(x, w, b) r = Relu(a) y = MatMul(r, v)
}"""


def listed(ir_version: int, *names: str) -> onnx.ModelProto:
    """A network whose initializers are inputs, too."""
    model = parse(LISTED)
    model.ir_version = ir_version
    for tensor in model.graph.initializer:
        if not names or tensor.name in names:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


SAMPLES = {"x": np.random.default_rng(0).standard_normal((16, 6), np.float32)}


@pytest.mark.parametrize("command", ["prune", "sparsify", "quantize"])
def test_files_before_version_4_are_written_valid(command: str) -> None:
    model = listed(3)
    if command == "prune":
        made = prune(model, HALF).model
    elif command == "sparsify":
        made = sparsify(model, SparseRecipe(target="sparsity=0.5", ends=True)).model
    else:
        made = quantize(model, samples=SAMPLES).model
    assert made.ir_version == 3
    onnx.checker.check_model(made, full_check=True)
    constants = {tensor.name for tensor in made.graph.initializer}
    assert [value.name for value in made.graph.input if value.name not in constants] == ["x"]
    assert {value.name for value in made.graph.input} == {"x", *constants}


def test_inputs_with_defaults_stay() -> None:
    model = listed(8, "b")
    with pytest.raises(TargetError, match="no group"):
        prune(model, HALF)
    refusal = next(refusal for refusal in analyze(model).coupling.refusals if "b:0" in refusal.axes)
    assert "callers may override" in refusal.text
    for made in (sparsify(model, SparseRecipe(target="sparsity=0.5", ends=True)).model, encode(model).model):
        assert list(made.graph.input) == list(model.graph.input)
        onnx.checker.check_model(made, full_check=True)
    result = quantize(model, samples=SAMPLES)
    assert list(result.model.graph.input) == list(model.graph.input)
    why = "it reads an input that callers may override, unless `onnxprune release` makes it a constant"
    assert ("Gemm", why) in [(one["op"], one["why"]) for one in result.report.kept]
