"""Bounds hold: corners of a box bound what monotone operators compute in it, hulls what moves and averages data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from axes.rules import samples
from axes.rules.conformance import draw, stated, whole
from axes.rules.more_samples import MORE
from axes.rules.samples import Sample
from nets import parse
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.axes.rules import registered
from onnxprune.driver.prune import analyze
from onnxprune.pruning.lossless.intervals import CONVEX, MONOTONE, POINTWISE, Operand, Ranges, hull, limits, product_bounds
from onnxprune.pruning.lossless.slices import Slices

SAMPLES = [*samples.SAMPLES, *MORE]
FLOAT = np.dtype(np.float32)


def of(ops: frozenset[str]) -> list[Sample]:
    return [sample for sample in SAMPLES if sample.op in ops and not sample.domain]


def test_every_operator_has_a_rule_and_a_sample() -> None:
    assert {("", op) for op in POINTWISE | CONVEX} <= set(registered())
    assert {sample.op for sample in of(POINTWISE | CONVEX)} == POINTWISE | CONVEX


@pytest.mark.parametrize("sample", of(MONOTONE), ids=lambda s: s.id)
def test_corners_bound_the_box(sample: Sample) -> None:
    ends = [draw(sample, how) for how in ("mixed", "positive")]
    moving = [
        i
        for i, (given, value) in enumerate(zip(sample.inputs, ends[0], strict=True))
        if isinstance(given, str) and value is not None and value.dtype.kind == "f" and ":" not in given
    ]
    run = whole(sample)
    corners = []
    for picks in itertools.product((0, 1), repeat=len(moving)):
        inputs = list(ends[0])
        for at, pick in zip(moving, picks, strict=True):
            inputs[at] = ends[pick][at]
        corners.append(run(inputs)[0].astype(np.float64))
    low, high = np.min(corners, 0), np.max(corners, 0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        inputs = list(ends[0])
        for at in moving:
            one, other = ends[0][at], ends[1][at]
            assert one is not None
            assert other is not None
            inputs[at] = np.asarray(one + rng.random(one.shape) * (other - one), one.dtype)
        y = run(inputs)[0].astype(np.float64)
        assert (y >= low - 1e-5).all()
        assert (y <= high + 1e-5).all()


@pytest.mark.parametrize("sample", of(CONVEX), ids=lambda s: s.id)
def test_hulls_bound_what_is_moved(sample: Sample) -> None:
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    for how in ("mixed", "negative", "positive"):
        inputs = draw(sample, how)
        views = [
            None if value is None or not isinstance(given, str) else bounds(value)
            for given, value in zip(sample.inputs, inputs, strict=True)
        ]
        for number, y in enumerate(whole(sample)(inputs)):
            found = hull(node, views, number)
            if found is not None:
                assert found[0][0] - 1e-5 <= y.min() <= y.max() <= found[1][0] + 1e-5


def bounds(array: np.ndarray) -> Slices:
    return Slices(np.zeros(1, np.uint64), np.full(1, array.min(), np.float64), np.full(1, array.max(), np.float64))


def ranges(text: str, *operands: Operand, size: int = 2) -> list[tuple[float, float]] | None:
    """The bounds of the first node of a net."""
    found = analyze(parse(text))
    result = Ranges(found.model)(found.coupling.nodes[0], 0, operands, size)
    return None if result is None else list(zip(*(end.tolist() for end in result), strict=True))


def operand(*ends: tuple[float, float], axis: int | None = 1, rank: int = 2) -> Operand:
    low, high = np.array(ends, np.float64).T
    return Operand(low, high, axis, rank, FLOAT)


INF = np.inf


def test_unbounded_inputs() -> None:
    assert ranges("(float[N,2] x) => (float[N,2] y) { y = Relu(x) }", operand((-INF, INF), (-3, 2))) == [(0, INF), (0, 2)]
    assert ranges("(float[N,2] x) => (float[N,2] y) { y = Sigmoid(x) }", operand((-INF, INF), (0, 0))) == [(0, 1), (0.5, 0.5)]


def test_products_take_every_corner() -> None:
    text = "(float[N,2] x, float[N,2] z) => (float[N,2] y) { y = Mul(x, z) }"
    assert ranges(text, operand((-2, 3), (-INF, INF)), operand((-5, 1), (0, 0))) == [(-15, 10), (0, 0)]


def test_other_operators_are_computed_at_points_alone() -> None:
    text = "(float[N,2] x) => (float[N,2] y) { y = Abs(x) }"
    assert ranges(text, operand((-3, 2), (-3, -3))) == [(-INF, INF), (3, 3)]


def test_what_varies_over_other_axes_is_unknown() -> None:
    text = "(float[N,2] x) => (float[N,2] y) <float z> { y = Mul(x, z) }"
    assert ranges(text, operand((1, 2), (1, 1)), operand((0, 1), axis=None, rank=0)) is None
    assert ranges(text, operand((1, 2), (1, 1)), operand((3, 3), axis=None, rank=0)) == [(3, 6), (3, 3)]


def test_what_is_not_a_number_is_unknown() -> None:
    text = "(float[N,2] x) => (float[N,2] y) { y = Log(x) }"
    assert ranges(text, operand((-1, -1), (1, 1))) == [(-INF, INF), (0, 0)]


def test_other_nodes_are_unknown() -> None:
    assert ranges("(float[N,2] x) => (float[N,2] y) { y = Softmax(x) }", operand((0, 0), (1, 1))) is None


def test_limits() -> None:
    assert limits(np.dtype(np.int8)) == (-128, 127)
    assert limits(np.dtype(bool)) == (0, 1)
    assert limits(np.dtype(np.float16)) == (-65504, 65504)


def test_bounds_of_products_with_matrices() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((2, 3, 4, 1)).astype(np.float32)
    matrix[0, 1] = 0
    matrix[0, 2] = -np.abs(matrix[0, 2])
    matrix[1, 0, 1:] = 0
    low, high = np.zeros((2, 4)), np.full((2, 4), np.inf)
    low[1, 0] = high[1, 0] = 2
    low[1, 1], high[1, 1] = -1, 1
    least, most = product_bounds(matrix, low, high, 1.0)
    assert (least[1], most[1]) == (0, 0)  # a row of zeros
    assert (least[2], most[2]) == (-np.inf, 0)  # negative weights of what is never negative
    assert least[3] == most[3] == pytest.approx(2 * matrix[1, 0, 0, 0])  # weighs a known number alone
    flipped = product_bounds(matrix, low, high, -1.0)
    np.testing.assert_allclose(flipped[0], -most)
    np.testing.assert_allclose(flipped[1], -least)
    none = product_bounds(matrix, np.full((2, 4), -np.inf), np.full((2, 4), np.inf), 1.0)
    assert np.isfinite(none[0]).tolist() == [False, True, False, False, False, False]
