"""Before and Expected: weights that a mask multiplies."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from nets import assert_same_graph, parse
from onnxprune.driver import encode
from onnxprune.ir.model import Model
from onnxprune.passes import FoldMasks


def masked(text: str, density: float = 0.3) -> ModelProto:
    """A model whose constants named mask are zeros and ones."""
    model = parse(text)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("mask"):
            array = rng.random(tuple(tensor.dims)) < density
            dtype = numpy_helper.to_array(tensor).dtype
            tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))
    return model


def array_of(model: ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


@pytest.mark.parametrize(
    "nodes",
    [
        "w = Mul(orig, mask)",
        "w = Mul(mask, orig)",
        "i = Identity(orig)\n j = Identity(mask)\n w = Mul(i, j)",
    ],
)
def test_the_product_is_one_constant(nodes: str) -> None:
    before = masked(f"(float[N,8] x) => (float[N,4] y) <float[8,4] orig, float[8,4] mask> {{ {nodes}\n y = MatMul(x, w) }}")
    after = FoldMasks().run(Model.of(before))
    assert_same_graph(after, parse("(float[N,8] x) => (float[N,4] y) <float[8,4] w> { y = MatMul(x, w) }"))
    wanted = array_of(before, "orig") * array_of(before, "mask")
    np.testing.assert_array_equal(after.weights["w"].array(), wanted)
    assert not np.signbit(after.weights["w"].array()[wanted == 0]).any(), "no negative zeros"


def test_a_mask_of_another_type() -> None:
    text = """(float[N,8] x) => (float[N,4] y) <float[8,4] orig, bool[8,4] mask> {
      m = Cast<to = 1>(mask)
      w = Mul(orig, m)
      y = MatMul(x, w)
    }"""
    before = masked(text)
    after = FoldMasks().run(Model.of(before))
    assert [node.op_type for node in after.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(after.weights["w"].array() != 0, array_of(before, "mask"))


def test_masks_of_masks() -> None:
    text = """(float[N,8] x) => (float[N,4] y) <float[8,4] orig, float[8,4] mask1, float[8,4] mask2> {
      v = Mul(orig, mask1)
      w = Mul(v, mask2)
      y = MatMul(x, w)
    }"""
    after = FoldMasks().run(Model.of(masked(text)))
    assert after.weights.keys() == {"w"}


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,8] x) => (float[N,4] y) <float[8,4] orig, float[8,4] scale> { w = Mul(orig, scale)\n y = MatMul(x, w) }",
        "(float[N,8] x) => (float[N,8] y) <float[8] mask> { y = Mul(x, mask) }",
        "(float[N,8] x) => (float[N,4] y) <float[8,4] orig, float[4] mask> { w = Mul(orig, mask)\n y = MatMul(x, w) }",
    ],
)
def test_other_products_stay(text: str) -> None:
    model = Model.of(masked(text))
    assert FoldMasks().run(model) is model


def test_a_weight_that_something_else_reads_stays() -> None:
    text = """(float[N,4] x) => (float[N,4] y) <float[4,4] orig, float[4,4] mask> {
      w = Mul(orig, mask)
      h = MatMul(x, w)
      y = MatMul(h, orig)
    }"""
    after = FoldMasks().run(Model.of(masked(text)))
    assert after.weights.keys() == {"w", "orig"}


def test_what_torch_prune_exports(tmp_path: Path) -> None:
    """Pruned twice and not made permanent: the masks are in the graph."""
    import torch
    from torch.nn.utils import prune

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 36, 32)).eval()
    for module in (net[0], net[3]):
        prune.l1_unstructured(module, "weight", 0.8)
        prune.random_unstructured(module, "weight", 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.randn(2, 3, 8, 8)
        path = tmp_path / "masked.onnx"
        torch.onnx.export(net, (images,), path, dynamo=False, do_constant_folding=False, input_names=["x"])
    model = onnx.load(path)
    assert sum(node.op_type == "Mul" for node in model.graph.node) == 2
    done = encode.encode(model)
    sparse = [row for row in done.weights if row.sparsity > 0.8]
    assert {row.shape: row.encoding for row in sparse} == {(32, 3, 3, 3): "gaps4", (32, 1152): "gaps4"}
    assert not any(node.op_type == "Mul" and "mask" in "".join(node.input) for node in done.model.graph.node)
    feeds = {"x": images.numpy()}
    got, wanted = (ort.InferenceSession(m.SerializeToString()).run(None, feeds)[0] for m in (done.model, model))
    np.testing.assert_array_equal(got, wanted)
