"""Weights that nodes make of next to nothing stay as the file has them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from nets import parse
from onnxprune.driver.quantize import quantize
from onnxprune.driver.sparsify import sparsify
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.model import Model
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.passes.generated import generated_weights

MAKERS = {
    "filled": ("made = ConstantOfShape<value = float[1] {0.25}>(square)", True),
    "repeated": ("made = Expand(row, square)", True),
    "unpacked": ("half = Cast<to = 1>(packed)\n made = Concat<axis = 1>(half, half, half, half)", True),
    "transposed": ("made = Transpose(data)", False),
    "cast": ("made = Cast<to = 1>(halves)", False),
}
X = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)


def net(maker: str, *, opset: int = 17, first: str = "made", second: str = "w") -> ModelProto:
    proto = parse(
        f"""(float[N,64] x) => (float[N,64] y) <int64[2] square = {{64, 64}}, float[1,64] row, int8[64,16] packed,
          float[64,64] data, float16[64,64] halves, float[64,64] w> {{
          {MAKERS[maker][0]}
          a = MatMul(x, {first})
          b = Relu(a)
          y = MatMul(b, {second})
        }}"""
    )
    read = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    for tensor in kept:
        if tensor.name == "packed":
            tensor.raw_data = np.random.default_rng(1).integers(-8, 8, (64, 16), np.int8).tobytes()
    proto.graph.initializer.extend(kept)
    proto.opset_import[0].version = opset
    return proto


@pytest.mark.parametrize("maker", MAKERS)
def test_those_that_take_fewer_bytes_than_elements_are_found(maker: str) -> None:
    found = generated_weights(Model.of(net(maker)))
    assert set(found) == ({"made"} if MAKERS[maker][1] else set())


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("maker", MAKERS)
def test_int8_is_for_data(maker: str, opset: int) -> None:
    """A layer whose weight is data is quantised, whatever it is made by; others stay, and the file never grows."""
    source = net(maker, opset=opset)
    result = quantize(source, QuantRecipe(per_channel=opset > 12), samples={"x": X})
    kept = {node["node"]: node["why"] for node in result.report.kept if node["op"] == "MatMul"}
    assert list(kept.values()) == ["nodes make its weight of fewer bytes than int8 takes"] * MAKERS[maker][1]
    assert result.report.weights == 1 + (not MAKERS[maker][1])
    assert result.model.ByteSize() < source.ByteSize()
    assert {value.name for value in result.model.graph.input} == {"x"}
    outputs = [ort.InferenceSession(proto.SerializeToString()).run(None, {"x": X})[0] for proto in (source, result.model)]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1 * np.abs(outputs[0]).max()


def test_nothing_is_quantised_where_all_is_made() -> None:
    with pytest.raises(TargetError, match="nothing in it can be quantised: nodes make its weight of fewer bytes than int8 takes"):
        quantize(net("filled", second="made"), samples={"x": X})


def test_zeros_are_for_data() -> None:
    source = net("filled")
    result = sparsify(source, SparseRecipe("sparsity=0.5", ends=True))
    assert [row.weight for row in result.report.layers] == ["w"]
    assert result.model.ByteSize() < source.ByteSize() + 400  # how it came about, in the metadata
    with pytest.raises(OptionError, match="'made' is made by nodes, and would be stored if it had zeros"):
        sparsify(net("filled", second="made"), SparseRecipe("sparsity=0.5", ends=True))
