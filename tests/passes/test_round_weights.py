"""Weights of an int8 model rounded towards what the original outputs."""

from __future__ import annotations

import numpy as np
import pytest

from int8_nets import net
from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.progress import Stages
from onnxprune.driver.quantize import Quantizer
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Couple, Normalize, RoundWeights
from onnxprune.passes.base import Fitted
from onnxprune.runtime.session import Session

RESIDUAL = """(float[N, 6, 8, 8] x) => (float[N, 10] y)
<float[16,6,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[16,6,1,1] w3, float[16] b3, float[10,16] w4,
 float[10] b4> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    ra = Relu (a)
    b = Conv <pads = [1, 1, 1, 1]> (ra, w2, b2)
    c = Conv (x, w3, b3)
    d = Add (b, c)
    rd = Relu (d)
    p = GlobalAveragePool (rd)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w4, b4)
}"""
DEPTHWISE = """(float[N, 6, 8, 8] x) => (float[N, 10, 8, 8] y)
<float[24,6,1,1] w1, float[24] b1, float[24,1,3,3] w2, float[24] b2, float[10,24,1,1] w3> {
    a = Conv (x, w1, b1)
    ra = Relu (a)
    b = Conv <pads = [1, 1, 1, 1], group = 24> (ra, w2, b2)
    rb = Relu (b)
    y = Conv (rb, w3)
}"""
PRODUCTS = """(float[N, 9, 6] x) => (float[N, 9, 5] y) <float[6,20] w1, float[20] b1, float[20,5] w2> {
    a = MatMul (x, w1)
    c = Add (a, b1)
    t = Tanh (c)
    y = MatMul (t, w2)
}"""
BRANCHING = """(float[N, 6, 8, 8] x) => (float[N, 10] y)
<float[16,6,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[10,16] w4, float[10] b4,
 int64 one = {1}, int64 width = {16}> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    ra = Tanh (a)
    sizes = Shape (x)
    channels = Gather (sizes, one)
    narrow = Less (channels, width)
    b = Conv <pads = [1, 1, 1, 1]> (ra, w2, b2)
    rb = Tanh (b)
    c = If (narrow) <then_branch = t () => (float[N, 16, 8, 8] p) { p = Identity (rb) },
                     else_branch = e () => (float[N, 16, 8, 8] q) { q = Neg (rb) }>
    p = GlobalAveragePool (c)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w4, b4)
}"""
"""The branch that is always taken is inlined where the network is analysed, and in int8 it is not."""
SHARED = """(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y) <float[6,6,1,1] w1, float[6,6,3,3] w2> {
    a = Conv (x, w1)
    b = Conv (a, w1)
    y = Conv <pads = [1, 1, 1, 1]> (b, w2)
}"""


def drawn(shape: tuple[int, ...], seed: int, count: int = 96) -> Array:
    mixed = np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
    return mixed + np.roll(mixed, 1, 1)  # channels depend on each other


def both(source: object, x: Array, **fields: object) -> tuple[Model, Model, Fitted]:
    """The prepared model, its int8 form with the nearest integers, and the same rounded anew."""
    model = Model.of(source)
    recipe = QuantRecipe(rounding="nearest", **fields)  # type: ignore[arg-type]  # fields of several types
    samples = open_samples({"x": x}, model.inputs)
    with Quantizer(model, recipe, samples, Stages()) as quantizer:
        nearest = quantizer.form(()).model
        prepared = quantizer.prepared
        analysis = Couple(allow_inexact=True).run(Normalize().run(prepared))
        fitted = RoundWeights(64 if recipe.reduced else 127).run(nearest, analysis, analysis.calibration(samples).every)
    return prepared, nearest, fitted


def error(model: Model, original: Model, x: Array) -> float:
    a, b = (Session(one).run({"x": x})[0] for one in (model, original))
    return float(np.square(a - b).mean() / np.square(b).mean())


def integers(model: Model) -> dict[str, Array]:
    return {name: weight.array() for name, weight in model.weights.items() if name.endswith("_quantized")}


@pytest.mark.parametrize(
    ("text", "shape"), [(RESIDUAL, (6, 8, 8)), (DEPTHWISE, (6, 8, 8)), (PRODUCTS, (9, 6)), (BRANCHING, (6, 8, 8))]
)
def test_outputs_are_nearer_to_the_originals_on_other_samples(text: str, shape: tuple[int, ...]) -> None:
    original, nearest, fitted = both(parse(text), drawn(shape, 0))
    fresh = drawn(shape, 1)
    assert error(fitted.model, original, fresh) < 0.9 * error(nearest, original, fresh)
    assert all(one.after <= one.before for one in fitted.repairs)


def test_every_layer_is_rounded_and_nothing_but_integers_changes() -> None:
    _, nearest, fitted = both(net(), drawn((4, 8, 8), 0))
    changed = {
        name for name, weight in nearest.weights.items() if not np.array_equal(weight.array(), fitted.model.weights[name].array())
    }
    assert changed <= integers(nearest).keys()
    assert len(fitted.repairs) == 4
    assert fitted.model.graph == nearest.graph
    assert all(array.dtype == integers(nearest)[name].dtype for name, array in integers(fitted.model).items())


@pytest.mark.parametrize("reduced", ["yes", "no"])
def test_bounds_and_zeros_hold(reduced: str) -> None:
    prepared, _, fitted = both(net(sparsity=0.5), drawn((4, 8, 8), 0), reduce_range=reduced)
    found = {name: array.astype(int) for name, array in integers(fitted.model).items() if array.dtype == np.int8}
    assert len(found) == 4
    for name, array in found.items():
        zero = prepared.weights[name.removesuffix("_quantized")].array() == 0
        assert np.abs(array).max() <= (64 if reduced == "yes" else 127)
        assert 0.4 < zero.mean() < 0.6
        assert not array[zero].any()


def test_weights_that_two_nodes_read_stay() -> None:
    _, nearest, fitted = both(parse(SHARED), drawn((6, 8, 8), 0))
    np.testing.assert_array_equal(integers(nearest)["w1_quantized"], integers(fitted.model)["w1_quantized"])
    assert len(fitted.repairs) == 1


def test_the_same_seed_gives_the_same_integers() -> None:
    first, second = (both(parse(RESIDUAL), drawn((6, 8, 8), 0))[2].model for _ in range(2))
    assert first.to_proto() == second.to_proto()
