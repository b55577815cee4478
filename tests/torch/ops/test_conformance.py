"""Operators compute what ONNX Runtime computes, on every sample of the axis rules, and their gradients are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from axes.rules.conformance import build, draw, same, whole
from axes.rules.more_samples import MORE
from axes.rules.samples import SAMPLES, Sample
from onnxprune.torch import to_module
from onnxprune.torch.registry import find_operator
from trainable import graph

COVERED = [
    sample for sample in (*SAMPLES, *MORE) if find_operator(sample.domain, sample.op, sample.opset if not sample.domain else 1)
]


def fed(sample: Sample, inputs: list[Any]) -> dict[str, Any]:
    """Inputs that are no constants, by name."""
    given = enumerate(zip(sample.inputs, inputs, strict=True))
    return {f"x{at}": x for at, (kind, x) in given if isinstance(kind, str)}


@pytest.mark.parametrize("sample", COVERED, ids=lambda sample: sample.id)
def test_forward(sample: Sample) -> None:
    """Equal to float tolerance (`same`: 1e-5 of the largest value in float32)."""
    inputs = draw(sample, "mixed")
    module = to_module(build(sample, inputs))
    feeds = fed(sample, inputs)
    with torch.no_grad():
        results = module.compute(feeds)
    for ours, theirs in zip(results.values(), whole(sample)(inputs), strict=True):
        assert same(ours.numpy(), np.asarray(theirs))


NO_SLOPE = {"Cast", "CastLike", "Dropout", "DynamicQuantizeLinear", "QuantizeLinear", "Scatter", "ScatterElements"}
"""Operators whose gradient is not the slope: rounding passes it straight through, types end what float64 can be checked for,
and these samples scatter two values to one place."""
SLOPED = [
    sample
    for sample in COVERED
    if sample.op not in NO_SLOPE and not sample.op.startswith("QLinear") and any(isinstance(x, str) for x in sample.inputs)
]


@pytest.mark.parametrize("sample", SLOPED, ids=lambda sample: sample.id)
def test_gradient(sample: Sample) -> None:
    """In float64 by finite differences, for every floating-point input together."""
    inputs = draw(sample, "mixed")
    module = to_module(build(sample, inputs)).double()
    feeds = {name: torch.as_tensor(x) for name, x in fed(sample, inputs).items()}
    feeds = {name: x.double() if x.is_floating_point() else x for name, x in feeds.items()}
    varied = [name for name, x in feeds.items() if x.is_floating_point()]

    def function(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = module.compute(feeds | dict(zip(varied, xs, strict=True))).values()
        return tuple(y for y in results if y.is_floating_point() and y.requires_grad)

    given = [feeds[name].requires_grad_() for name in varied]
    if given and function(*given):
        torch.autograd.gradcheck(function, given, fast_mode=True)


def test_gradient_of_scattered_values() -> None:
    proto = graph(
        "(double[2,4] x, double[2,2] v) => (double[2,4] y) "
        "<int64[2,2] at = {3, 1, 0, -2}> { y = ScatterElements <axis = 1> (x, at, v) }"
    )
    xs = torch.randn(2, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(to_module(proto), xs)


def test_gradients_pass_straight_through_rounding() -> None:
    """As 1 where the rounded value fits the type, as 0 where it was cut off; weights behind the pair are trained."""
    proto = graph(
        "(float[N] x) => (float[N] y) <float s = {0.5}, int8 z = {3}> "
        "{ q = QuantizeLinear(x, s, z) r = Identity(q) y = DequantizeLinear(r, s, z) }"
    )
    module, x = to_module(proto), torch.tensor([0.3, -1.1, 61.9, 62.1, 1000, -1000], requires_grad=True)
    y = module(x)
    assert y.tolist() == [0.5, -1.0, 62.0, 62.0, 62.0, -65.5]
    with torch.no_grad():
        assert torch.equal(module(x), y)
        assert module.compute({"x": x}, ["q"])["q"].dtype == torch.int8
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 1, 0, 0]
