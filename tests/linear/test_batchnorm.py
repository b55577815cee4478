"""Batch normalisation behind a convolution: part of its product, and out of the way once the reader has new weights."""

from __future__ import annotations

import numpy as np
import pytest

from linear.test_layers import check_product, values
from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import install, linear_readers, matrix_of

NET = """(float[N,4,5,5] x) => (float[N,2,3,3] y{outputs})
<float[6,2,3,3] w, float[6] b, float[6] scale, float[6] shift, float[6] mean, float[6] var, float[2,6,1,1] v, float[6] other> {{
  a = Conv<group = 2>(x, w{bias})
  {norm}
  c = Relu(h)
  y = Conv(c, v)
}}"""
NORM = "h = BatchNormalization<epsilon = 0.01>(a, scale, shift, mean, var)"


@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_norm_is_part_of_the_product_and_then_adds_the_bias_alone(bias: str) -> None:
    found = analyze(parse(NET.format(norm=NORM, bias=bias, outputs="")))
    reader = linear_readers(found.model, found.coupling)[0]
    assert (reader.output, reader.bias) == ("h", "shift")
    check_product(reader, found.model)
    before = values(found.model, ["h"])["h"]
    copy = found.model.copy()
    install(copy, reader, matrix_of(reader, copy))  # the same product, written another way
    np.testing.assert_allclose(values(copy, ["h"])["h"], before, rtol=1e-5, atol=1e-5)
    matrix = np.asarray(np.random.default_rng(0).normal(size=matrix_of(reader, copy).shape))
    install(copy, reader, matrix)
    np.testing.assert_allclose(matrix_of(reader, copy), matrix, rtol=1e-5, atol=1e-6)
    check_product(reader, copy)


@pytest.mark.parametrize(
    ("norm", "outputs"),
    [
        (NORM, ", float[N,6,3,3] a"),
        (f"{NORM}  d = Sigmoid(a)", ", float[N,6,3,3] d"),
        ("k = BatchNormalization(x2, scale, shift, mean, var)  h = Add(a, k)", ""),
    ],
)
def test_a_norm_that_is_not_alone_is_a_node_of_its_own(norm: str, outputs: str) -> None:
    text = NET.format(norm=norm, bias=", b", outputs=outputs)
    if "x2" in norm:
        text = text.replace("x)", "x, float[N,6,3,3] x2)", 1)
    found = analyze(parse(text))
    readers = [reader for reader in linear_readers(found.model, found.coupling) if reader.weight == "w"]
    assert all(reader.norm is None and reader.output == "a" for reader in readers)
