"""A small net whose layers the tests of sparse weights share."""

from __future__ import annotations

import numpy as np

from nets import parse
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.ir.precision import as_float32
from onnxprune.passes import Couple, Facts, Normalize, Pipeline
from onnxprune.passes.base import need
from onnxprune.sparse.layers import Layer, find

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
    model, facts = Pipeline([Normalize(), Couple()]).run(Model.of(parse(NET)))
    return model, find(model, need(facts.coupling, "coupling"), protect)


X = np.random.default_rng(0).standard_normal((64, 4, 8, 8)).astype(np.float32)


def ready(text: str = NET, *, float32: bool = False) -> tuple[Model, Facts]:
    """A normalised model, and facts to make it sparse with."""
    model, facts = Pipeline([Normalize(), Couple()]).run(Model.of(parse(text)))
    facts.original = as_float32(model) if float32 else model
    facts.calibration = Calibration.of(
        open_samples({"x": X.astype(np.float16) if float32 else X}, model.inputs), need(facts.shapes, "shapes"), float32=float32
    )
    return model, facts
