"""Every reader with a constant matrix is one formula."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Array
from onnxprune.pruning.lossless.affine import Affine, affine, merged
from onnxprune.runtime import session
from onnxprune.shapes import candidates

CONV = "(float[N,6,5,5] x) => (float[N,4,4,3] y) <float[4,3,2,3] w, float[4] b> {{ y = Conv<group = 2{more}>(x, w, b) }}"


def form_of(text: str) -> tuple[Affine, Array, Array, Array]:
    """The only node of a net as an affine form, its matrix, its input and its output."""
    found = analyze(parse(text))
    form = affine(found.coupling.nodes[0], found.model.weights)
    assert form is not None
    feeds = session.random_feeds(found.model.inputs, candidates.bindings(found.model.inputs)[0], 0)
    y = session.Session(found.model).run(feeds)[0]
    return form, form.view(found.model.weights[form.matrix].array()), feeds["x"], y


def test_convolution() -> None:
    form, matrix, x, y = form_of(CONV.format(more=""))
    assert matrix.shape == (2, 2, 3, 6)
    windows = sliding_window_view(x.reshape(len(x), 2, 3, 5, 5), (2, 3), (3, 4)).reshape(len(x), 2, 3, 4, 3, 6)
    expected = np.einsum("goik,ngihwk->ngohw", matrix, windows).reshape(y.shape)
    bias = analyze(parse(CONV.format(more=""))).model.weights["b"].array().reshape(-1, 1, 1)
    np.testing.assert_allclose(y, expected + bias, atol=1e-5)
    assert not form.padded


MATRICES = {
    "(float[N,3] x) => (float[N,4] y) <float[3,4] w> { y = MatMul(x, w) }": "goik,ni->ngok",
    "(float[2,N,3] x) => (float[2,N,4] y) <float[3,4] w> { y = MatMul(x, w) }": "goik,bni->bngok",
    "(float[3,N] x) => (float[4,N] y) <float[4,3] w> { y = MatMul(w, x) }": "goik,in->gokn",
    "(float[N,3] x) => (float[N,4] y) <float[4,3] w> { y = Gemm<transB = 1>(x, w) }": "goik,ni->ngok",
    "(float[3,N] x) => (float[N,4] y) <float[3,4] w> { y = Gemm<transA = 1, alpha = 2.0>(x, w) }": "goik,in->ngok",
    "(float[N,4,2,2] x) => (float[N,6,2,2] y) <float[4,3,1,1] w> { y = ConvTranspose<group = 2>(x, w) }": "",
}


@pytest.mark.parametrize(("text", "formula"), MATRICES.items())
def test_products(text: str, formula: str) -> None:
    form, matrix, x, y = form_of(text)
    if formula:
        expected = np.einsum(formula, matrix, x).reshape(y.shape) * form.scales[0]
    else:
        expected = np.einsum("goik,ngihw->ngohw", matrix, x.reshape(len(x), 2, 2, 2, 2)).reshape(y.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_the_matrix_is_a_view() -> None:
    for text in (CONV.format(more=""), *MATRICES):
        found = analyze(parse(text))
        form = affine(found.coupling.nodes[0], found.model.weights)
        assert form is not None
        array = found.model.weights[form.matrix].array().copy()
        form.view(array)[:] = 7
        assert (array == 7).all()


@pytest.mark.parametrize(
    ("more", "padded"),
    [
        ("", False),
        (", pads = [0,0,0,0]", False),
        (", auto_pad = 'VALID'", False),
        (", pads = [0,0,0,1]", True),
        (", auto_pad = 'SAME_UPPER'", True),
    ],
)
def test_padding(more: str, padded: bool) -> None:
    text = CONV.format(more=more.replace("'", '"')).replace("[N,4,4,3] y", "[N,4,H,W] y")
    form = affine(analyze(parse(text)).coupling.nodes[0], analyze(parse(text)).model.weights)
    assert form is not None
    assert form.padded == padded


def test_kernels_of_one_position_meet_no_padding() -> None:
    text = '(float[N,6,5,5] x) => (float[N,4,H,W] y) <float[4,6,1,1] w> { y = Conv<auto_pad = "SAME_UPPER">(x, w) }'
    form = affine(analyze(parse(text)).coupling.nodes[0], analyze(parse(text)).model.weights)
    assert form is not None
    assert not form.padded


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }",
        "(float[N,2,3] x) => (float[N,2,4] y) <float[2,3,4] w> { y = MatMul(x, w) }",
        "(float[3] x) => (float[4] y) <float[4,3] w> { y = MatMul(w, x) }",
        "(float[N,3] x) => (float[N,3] y) <float[3] w> { y = Mul(x, w) }",
    ],
)
def test_other_nodes_are_none(text: str) -> None:
    found = analyze(parse(text))
    assert affine(found.coupling.nodes[0], found.model.weights) is None


def test_equal_data_add_up() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(2, 2, 3, 1)
    digest = np.array([[5, 6, 5], [1, 2, 3]], np.uint64)
    found = merged(matrix, digest)
    assert found[0, :, :, 0].tolist() == [[2, 1, 0], [8, 4, 0]]
    np.testing.assert_array_equal(found[1], matrix[1])
    assert matrix[0, 0, 0, 0] == 0
    assert merged(matrix, np.arange(6, dtype=np.uint64).reshape(2, 3)) is matrix
