"""A small network of the layers that compute in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from onnxprune.driver.quantize import QuantResult, quantize
from onnxprune.ir.weights import Array
from onnxprune.options.quantize import QuantRecipe

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[N, 4, 8, 8] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, first, first_bias)
    b = BatchNormalization (a, gain, shift, mean, variance)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1], group = 2> (c, second)
    e = Add (d, c)
    f = GlobalAveragePool (e)
    g = Flatten (f)
    h = MatMul (g, third)
    y = Gemm <transB = 1> (h, fourth, last_bias)
}"""
SHAPES = {
    "first": (8, 4, 3, 3), "first_bias": (8,), "gain": (8,), "shift": (8,), "mean": (8,), "variance": (8,),
    "second": (8, 4, 3, 3), "third": (8, 6), "fourth": (5, 6), "last_bias": (5,),
}  # fmt: skip
LAYERS = ("first", "second", "third", "fourth")


def net(seed: int = 0, sparsity: float = 0.0, text: str = NET, spread: float = 0.0) -> onnx.ModelProto:
    """A small network, a share of whose weights are zero; scales of its channels differ by powers of ten to ``spread``."""
    rng = np.random.default_rng(seed)
    proto = parser.parse_model(text)
    for name, shape in SHAPES.items():
        array = rng.standard_normal(shape)
        if name in LAYERS:
            array *= 10.0 ** rng.uniform(-spread, spread, (shape[0],) + (1,) * (len(shape) - 1))
            array[rng.random(shape) < sparsity] = 0
        if name == "variance":
            array = np.abs(array) + 0.5
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def samples(count: int = 8, seed: int = 1) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 4, 8, 8)).astype(np.float32)}


def small(source: Any, **fields: Any) -> QuantResult:
    return quantize(source, QuantRecipe(**fields), samples=samples())
