"""The metric that suits what a model outputs."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.verify.suited import suited_metric


@pytest.mark.parametrize(
    ("nodes", "metric"),
    [
        ("y = MatMul(x, w)", "agreement"),
        ("a = MatMul(x, w) y = Add(a, b)", "agreement"),
        ("a = MatMul(x, w) s = Div(a, b) y = Softmax(s)", "agreement"),
        ("a = MatMul(x, w) e = Exp(a) t = ReduceSum(e, last) y = Div(e, t)", "agreement"),
        ("y = Identity(x)", "agreement"),
        ("a = MatMul(x, w) q = Mul(a, a) t = ReduceSum(q, last) r = Sqrt(t) y = Div(a, r)", "cosine"),
        ("a = MatMul(x, w) y = LpNormalization(a)", "cosine"),
        ("a = MatMul(x, w) n = LayerNormalization(a, b, b) y = Identity(n)", "cosine"),
        ("n = LpNormalization(x) s = Mul(n, b) y = Add(b, s)", "cosine"),
        ("a = Reshape(x, four) p = GlobalAveragePool(a) y = Flatten(p)", "agreement"),  # maps of classes, as in SqueezeNet
        ("a = Unsqueeze(x, last) b2 = Concat<axis=1>(a, a) y = ReduceMean<keepdims=0>(b2, last)", "agreement"),  # of two heads
    ],
)
def test_scores_of_classes_and_features(nodes: str, metric: str) -> None:
    text = f"""(float[N, 4] x) => (float[N, 4] y)
        <float[4, 4] w, float[4] b, int64[1] last = {{1}}, int64[4] four = {{0, 4, 1, 1}}> {{ {nodes} }}"""
    model = Model.of(parse(text))
    assert suited_metric(model, open_samples({"x": np.ones((3, 4), np.float32)}, model.inputs)) == metric


@pytest.mark.parametrize(
    ("opset", "axis", "metric"),
    [(18, "", "position_agreement"), (18, "<axis=2>", "position_agreement"), (18, "<axis=1>", "cosine"), (11, "", "cosine")],
)
def test_probabilities_along_the_last_axis_are_classes_at_positions(opset: int, axis: str, metric: str) -> None:
    model = Model.of(parse(f"(float[N, 5, 4] x) => (float[N, 5, 4] y) {{ y = Softmax{axis}(x) }}", opset))
    samples = open_samples({"x": np.random.default_rng(0).random((3, 5, 4), np.float32)}, model.inputs)
    assert suited_metric(model, samples) == metric


def test_steps_that_are_blank_for_the_most_part_are_read_as_text() -> None:
    model, x = Model.of(parse("(float[N, 5, 4] x) => (float[N, 5, 4] y) { y = Softmax(x) }")), np.zeros((3, 5, 4), np.float32)
    x[:, :3, 3] = x[:, 3:, 2] = 1
    assert suited_metric(model, open_samples({"x": x}, model.inputs)) == "ctc_agreement"


@pytest.mark.parametrize(
    ("score", "pixels", "metric"),
    [(0.9, 100.0, "detections"), (0.1, 100.0, "cosine"), (1.1, 100.0, "cosine"), (0.9, 1.0, "cosine")],
)
def test_boxes_in_pixels_and_scores_are_detections_where_something_is_found(score: float, pixels: float, metric: str) -> None:
    """... in some sample: not each image shows something."""
    model, x = Model.of(parse("(float[N, 6, 9] x) => (float[N, 6, 9] y) { y = Identity(x) }")), np.zeros((40, 6, 9), np.float32)
    x[:, :4], x[30, 4, 2] = pixels, score
    assert suited_metric(model, open_samples({"x": x}, model.inputs)) == metric
