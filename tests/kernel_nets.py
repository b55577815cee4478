"""A net whose layers may have sparse kernels, and weights with blocks of zeros."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from nets import parse

NET = """(float[N,16,9,9] x) => (float[N,24] y) <
    float[32,16,3,3] one, float[32] one_bias, float[32,32,1,1] two, float[32,32,3,3] three, float[32] three_bias,
    float[24,32] last, float[24] last_bias, float low = {0.0}, float high = {6.0}
> {
  a = Conv<pads = [1,1,1,1], kernel_shape = [3,3]>(x, one, one_bias)
  b = Relu(a)
  c = Conv(b, two)
  d = Conv<pads = [1,1,1,1]>(b, three, three_bias)
  e = Add(d, c)
  f = Clip(e, low, high)
  g = GlobalAveragePool(f)
  h = Flatten(g)
  y = Gemm<transB = 1>(h, last, last_bias)
}"""


def sparse(text: str, density: float = 0.2, height: int = 1, opset: int = 18) -> ModelProto:
    """A net whose weights have blocks of zeros."""
    model = parse(text, opset=opset)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1:
            rows = array.reshape(len(array), -1)
            kept = np.repeat(rng.random((-(-len(rows) // height), rows.shape[1])) < density, height, axis=0)[: len(rows)]
            tensor.CopyFrom(numpy_helper.from_array((rows * kept).reshape(array.shape), tensor.name))
    return model
