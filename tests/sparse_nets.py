"""A small net whose layers the tests of sparse weights share."""

from __future__ import annotations

import numpy as np

from nets import parse
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize
from onnxprune.passes.analysis import Analysis
from onnxprune.sparse.layers import Layer, find_layers

NET = """(float[N,4,8,8] x) => (float[N,10] y)
    <float[8,4,3,3] first, float[8,8,3,3] inner, float[8,1,3,3] depth, float[8,8,1,1] skip, float[8] scale, float[8,10] last> {
  a = Conv<pads = [1,1,1,1]>(x, first)
  b = Relu(a)
  c = Conv<pads = [1,1,1,1]>(b, inner)
  d = Conv<pads = [1,1,1,1], group = 8>(c, depth)
  e = Conv(b, skip)
  f = Add(d, e)
  g = GlobalAveragePool(f)
  h = Flatten(g)
  i = Mul(h, scale)
  y = MatMul(i, last)
}"""


def layers(*protect: str) -> tuple[Model, list[Layer]]:
    found = Couple().run(Normalize().run(Model.of(parse(NET))))
    return found.model, find_layers(found.model, found.coupling, protect)[0]


X = np.random.default_rng(0).standard_normal((64, 4, 8, 8)).astype(np.float32)


def ready(text: str = NET) -> tuple[Analysis, Calibration]:
    """What is needed to make a model sparse: its groups, and samples in its floating-point type."""
    found = Couple().run(Normalize().run(Model.of(parse(text))))
    samples = {"x": X if found.is_float32 else X.astype(np.float16)}
    return found, found.calibration(open_samples(samples, found.model.inputs))
