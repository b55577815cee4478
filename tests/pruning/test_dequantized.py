"""Real values of quantised constants, against what ONNX Runtime multiplies with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from axes.rules.conformance import build, draw, stated, whole
from axes.rules.more_samples import BLOCKS, QUANTIZED
from axes.rules.samples import Sample
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.pruning.dequantized import dequantized


def found(sample: Sample) -> tuple[Array, list[Any]]:
    """The real values of the constant of a sample, and its inputs."""
    given, node = draw(sample, "mixed"), stated(sample)
    assert isinstance(node, NodeAxes)
    weights = {name: Weight(name, None, value) for name, value in zip(node.view.inputs, given, strict=True) if value is not None}
    (position,) = node.rule.quantized
    return dequantized(weights, node, position), given


@pytest.mark.parametrize("sample", [s for s in BLOCKS if s.op == "MatMulNBits"], ids=lambda s: s.id)
def test_packed_matrix(sample: Sample) -> None:
    """A product with the unit matrix is the matrix, without the bias and what pads the last block."""
    values, given = found(sample)
    inner = sample.attrs["K"]
    given[0] = np.eye(inner, dtype=np.float32)
    given = [None if at == 5 else value for at, value in enumerate(given)]
    bare = Sample(sample.op, sample.domain, sample.opset, (f"{inner} {inner}", *sample.inputs[1:5]), sample.attrs)
    (expected,) = whole(bare)(given[:5])
    assert np.allclose(values.reshape(len(values), -1)[:, :inner], expected.T, atol=1e-5)


@pytest.mark.parametrize("sample", [s for s in (*BLOCKS, *QUANTIZED) if s.op == "DequantizeLinear"], ids=lambda s: s.id)
def test_dequantize_linear(sample: Sample) -> None:
    values, given = found(sample)
    (expected,) = whole(sample)(given)
    assert np.allclose(values, expected, atol=1e-6)


def test_scale_that_the_graph_computes_is_left_out() -> None:
    sample = BLOCKS[0]
    given, node = draw(sample, "mixed"), stated(sample)
    assert isinstance(node, NodeAxes)
    assert isinstance(given[1], np.ndarray)
    weights = Model.of(build(sample, given)).weights | {"x1": Weight("x1", None, given[1])}
    low, high = given[1] & 15, given[1] >> 4
    expected = np.stack([low, high], -1).reshape(8, 2, 16)
    assert np.array_equal(dequantized(weights, node, 1), expected - 8.0)
