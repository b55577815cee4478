"""A small residual network; what some of its blocks add is little, or a linear function of what enters them."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight

TEXT = """(float[N,3,8,8] x) => (float[N,10] y) <
    float[16,3,3,3] w0, float[16] b0, float[16,16,1,1] linear, float[16,16,3,3] w1, float[16] b1, float[16,16,3,3] w2,
    float[16,16,3,3] w3, float[16,16,3,3] w4, float[10,16] head
  > {
    stem = Conv<pads = [1,1,1,1]>(x, w0, b0)
    more = Conv(stem, linear)
    first = Add(more, stem)
    r = Relu(first)
    a = Conv<pads = [1,1,1,1]>(r, w1, b1)
    ra = Relu(a)
    c = Conv<pads = [1,1,1,1]>(ra, w2)
    little = Add(c, r)
    s = Relu(little)
    d = Conv<pads = [1,1,1,1]>(s, w3)
    rd = Relu(d)
    e = Conv<pads = [1,1,1,1]>(rd, w4)
    much = Add(e, s)
    t = Relu(much)
    g = GlobalAveragePool(t)
    f = Flatten(g)
    y = Gemm<transB = 1>(f, head)
  }"""
X = np.random.default_rng(0).standard_normal((96, 3, 8, 8)).astype(np.float32)


def residual() -> ModelProto:
    """The network: the sum ``first`` is linear in what enters it, ``little`` changes little and ``much`` a lot."""
    proto = parse(TEXT)
    for node in proto.graph.node:
        node.name = f"{node.output[0]}_node"
    model = Model.of(proto)
    for name, scale in {"w2": 0.1, "w4": 10.0}.items():
        model.weights[name] = Weight(name, None, (model.weights[name].array() * scale).astype(np.float32))
    return model.to_proto()
