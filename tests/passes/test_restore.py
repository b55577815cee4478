"""Constants that nodes of the file make: folded, and made by these nodes again where they did not change."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper

from nets import parse
from onnxprune.driver.prune import prune
from onnxprune.driver.quantize import quantize
from onnxprune.driver.sparsify import sparsify
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.passes import Normalize, Restore
from onnxprune.runtime.session import evaluate

MAKERS = {
    "filled": "made = ConstantOfShape<value = float[1] {0.25}>(square)",
    "expanded": "row = Range(from, to, step)\n made = Expand(row, square)",
    "tiled": "row = Range(from, to, step)\n line = Unsqueeze(row, zero)\n made = Tile(line, times)",
    "triangle": "ones = ConstantOfShape<value = float[1] {1}>(square)\n made = Trilu<upper = 0>(ones)",
    "cast": "whole = ConstantOfShape<value = int64[1] {3}>(square)\n made = Cast<to = 1>(whole)",
}
X = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)


def net(maker: str) -> ModelProto:
    """A network whose first matrix [64, 64] nodes make."""
    return parse(
        f"""(float[N,64] x) => (float[N,8] y) <
          float from = {{0}}, float to = {{64}}, float step = {{1}}, int64[2] square = {{64, 64}}, int64[2] times = {{64, 1}},
          int64[1] zero = {{0}}, float[64,32] w1, float[32,8] w2> {{
          {MAKERS[maker]}
          a = MatMul(x, made)
          b = MatMul(a, w1)
          c = Relu(b)
          y = MatMul(c, w2)
        }}"""
    )


def folded(model: Model) -> Model:
    """The model with its first matrix as a constant."""
    result = model.copy()
    nodes = [node for node in model.graph.node if node.op_type not in {"MatMul", "Relu"}]
    values = evaluate(model.proto, nodes, {name: weight.array() for name, weight in model.weights.items()})
    kept = [node for node in model.graph.node if node not in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    result.weights["made"] = Weight("made", None, values["made"])
    return result


def outputs(model: ModelProto) -> np.ndarray:
    return np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0])


@pytest.mark.parametrize("maker", MAKERS)
def test_what_nodes_make_is_made_by_them_again(maker: str) -> None:
    original = Model.of(net(maker))
    dense = folded(original)
    restored = Restore().run(dense, original)
    assert "made" in dense.weights
    assert "made" not in restored.weights
    assert restored.nbytes < dense.nbytes - 15_000
    np.testing.assert_array_equal(outputs(restored.to_proto()), outputs(original.to_proto()))


SHARING = """(float[N,8] x) => (float[N,8] y) <float[8,8] w, float[8] b, float low = {0}> {
  a = Gemm(x, w, b) r = Clip(a, low) c = Gemm(r, w, b) d = Gemm(c, v, b) q = Clip(d, low) y = Gemm(q, u, b)
}""".replace("<float[8,8] w", "<float[8,8] v, float[8,8] u, float[8,8] w")


def test_copies_of_a_shared_constant_are_one_again() -> None:
    original = Model.of(parse(SHARING))
    model = Normalize().run(original).model
    assert {"b__copy", "b__copy__1", "b__copy__2", "low__copy"} < model.weights.keys()
    assert Restore().run(model, original).weights.keys() == original.weights.keys()
    small = prune(parse(SHARING), Recipe(target="channels=0.5", align="1")).model
    biases = sorted(weight.dims[0] for weight in small.graph.initializer if weight.name.startswith("b") and len(weight.dims) == 1)
    assert biases == [4, 8]  # cut for the third layer alone
    assert len(small.graph.initializer) == 6


def test_a_copy_that_is_an_output_keeps_its_name() -> None:
    proto = parse(SHARING)
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("b", TensorProto.FLOAT, [8]))
    original = Model.of(proto)
    restored = Restore().run(Normalize().run(original).model, original)
    assert [value.name for value in restored.graph.output] == ["y", "b"]
    assert "b" in restored.weights


def test_a_constant_that_differs_in_one_bit_stays() -> None:
    original = Model.of(net("filled"))
    dense = folded(original)
    array = dense.weights["made"].array().copy()
    array[3, 5] = np.nextafter(array[3, 5], np.float32(1))
    dense.weights["made"] = Weight("made", None, array)
    assert Restore().run(dense, original) is dense


@pytest.mark.parametrize("changed", [False, True])
def test_constants_that_are_made_of_one_are_judged_together(changed: bool) -> None:
    """One alone takes as much room as what it is made of."""
    original = Model.of(
        parse("""(float[N,64] x) => (float[N,64] y) <float[64,64] w> {
          left = Neg(w)
          right = Transpose(w)
          a = MatMul(x, left)
          y = MatMul(a, right)
        }""")
    )
    dense, array = original.copy(), original.weights["w"].array()
    del dense.weights["w"], dense.graph.node[:2]
    dense.weights |= {"left": Weight("left", None, -array), "right": Weight("right", None, array.T + np.float32(changed))}
    restored = Restore().run(dense, original)
    assert restored.weights.keys() == ({"left", "right"} if changed else {"w"})
    np.testing.assert_array_equal(outputs(restored.to_proto()), outputs(dense.to_proto()))


def test_nodes_that_take_more_bytes_do_not_come_back() -> None:
    text = """(float[N,16] x) => (float[N,8] y) <float[8,16] v> {
      w = Transpose<perm = [1, 0]>(v)
      y = MatMul(x, w)
    }"""
    original = Model.of(parse(text))
    dense = original.copy()
    del dense.graph.node[0]
    dense.weights = {"w": Weight("w", None, np.ascontiguousarray(original.weights["v"].array().T))}
    assert Restore().run(dense, original) is dense


@pytest.mark.parametrize("maker", MAKERS)
def test_pruned_and_sparse_files_are_no_larger(maker: str) -> None:
    source = net(maker)
    small = prune(source, Recipe(target="channels=0.9", align="1", protect=("made", "a")), agreement=False)
    sparse = sparsify(source, SparseRecipe(target="sparsity=0.5", ends=True, protect=("made",)), agreement=False)
    assert small.model.ByteSize() < source.ByteSize()
    assert sparse.model.ByteSize() < source.ByteSize() * 1.05


def test_a_causal_mask_stays_small_in_int8() -> None:
    text = """(float[N,64,64] x) => (float[N,64,8] y) <int64[2] square = {64, 64}, float[64,64] w1, float[64,8] w2> {
      low = ConstantOfShape<value = float[1] {-10}>(square)
      mask = Trilu<upper = 1>(low)
      a = MatMul(x, w1)
      b = Add(a, mask)
      c = Softmax(b)
      y = MatMul(c, w2)
    }"""
    source, samples = parse(text), np.random.default_rng(0).standard_normal((8, 64, 64)).astype(np.float32)
    made = quantize(source, QuantRecipe(exclude=("Add",)), samples={"x": samples}, agreement=False)
    assert made.model.ByteSize() < source.ByteSize() / 2


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("product", ["Mul(mask, a)", "Mul(a, mask)", "Add(a, mask)"])
def test_a_mask_is_made_and_then_quantised(product: str, per_channel: bool) -> None:
    """What would be stored in int8 is made by the nodes of the file, and one more, that ONNX Runtime folds together at load."""
    text = f"""(float[N,128,128] x) => (float[N,128,8] y)
    <int64[2] square = {{128, 128}}, float[128,128] w1, float[128,8] w2> {{
      ones = ConstantOfShape<value = float[1] {{1}}>(square)
      mask = Trilu<upper = 0>(ones)
      a = MatMul(x, w1)
      b = {product}
      y = MatMul(b, w2)
    }}"""
    source, samples = parse(text), np.random.default_rng(0).standard_normal((4, 128, 128)).astype(np.float32)
    recipe = QuantRecipe(per_channel=per_channel)
    made = quantize(source, recipe, samples={"x": samples}, agreement=False)
    assert made.report.nodes == {"MatMul": 2, product[:3]: 1}
    assert made.model.ByteSize() < source.ByteSize() / 2.5
    assert not any(tensor.dims == [128, 128] and tensor.name != "w1" for tensor in made.model.graph.initializer)
    assert made.report.size == (source.ByteSize(), made.model.ByteSize())


def test_weights_that_branches_share_are_stored_once_in_int8() -> None:
    """ONNX Runtime computes in each branch what it makes of them, and stores that there."""
    original = parse(
        """(float[N,64] x, bool c) => (float[N,64] y) <float[64,64] u, float[64,64] w> {
          a = MatMul(x, u)
          y = If(c) <then_branch = t () => (float[N,64] p) { v = Transpose(w) l = MatMul(a, v) p = Tanh(l) },
                     else_branch = e () => (float[N,64] q) { k = Transpose(w) m = MatMul(a, k) q = Sigmoid(m) }>
        }"""
    )
    result = quantize(original, samples={"x": X, "c": np.array(True)})
    assert result.report.size[1] < 64 * 64 * 5 + 4000
    assert sum(weight.size == 64 * 64 for weight in result.compiled.weights.values()) == 2


def test_nodes_come_back_in_another_operator_set_that_does_not_change_them() -> None:
    original = Model.of(net("filled"))
    dense = folded(original)
    for opset, comes_back in ((original.opset - 1, True), (8, False)):  # ConstantOfShape came with 9
        dense.proto.opset_import[0].version = opset
        assert (Restore().run(dense, original) is not dense) == comes_back


def test_weights_that_nodes_fill_are_filled_when_they_are_cut() -> None:
    """The light models of the onnx package: a few kilobytes whose weights are filled at load."""
    source = parse("""(float[N,64] x) => (float[N,64] y) <int64[2] square = {64, 64}, float[64] b> {
      w = ConstantOfShape<value = float[1] {0.01}>(square)
      v = ConstantOfShape<value = float[1] {0.02}>(square)
      a = MatMul(x, w)
      r = Relu(a)
      c = MatMul(r, v)
      y = Add(c, b)
    }""")
    result = prune(source, Recipe(target="params=0.5", align="1"), agreement=False)
    assert result.report.before.params == 2 * 64 * 64 + 64
    assert 0.45 < result.report.obtained["params"] <= 0.5
    assert result.model.graph.ByteSize() < source.graph.ByteSize() + 100
