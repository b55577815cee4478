"""ONNX Runtime as the reference that tests of the PyTorch side compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onnxprune.ir.model import Model
from onnxprune.runtime import session
from onnxprune.torch import GraphModule, to_module

TOLERANCE = 1e-5
"""Largest difference, relative to the largest value of the tensor, in float32."""


def feeds_of(model: Model, size: int = 2) -> dict[str, Any]:
    """Seeded inputs; open sizes are `size`."""
    shapes = {v.name: tuple(d.dim_value or size for d in v.type.tensor_type.shape.dim) for v in model.inputs}
    return session.random_feeds(model.inputs, shapes, 0)


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference relative to the largest value; types, shapes and what is not finite must agree."""
    if isinstance(theirs, list):
        return max((difference(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    ours = ours.detach().numpy()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    finite = np.isfinite(theirs)
    assert np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
    expected = theirs[finite].astype(np.float64)
    wrong = np.abs(ours[finite].astype(np.float64) - expected)
    return float(wrong.max(initial=0) / max(float(np.abs(expected).max(initial=0)), 1e-30))


def check_forward(source: Any, size: int = 2) -> GraphModule:
    """The module computes what ONNX Runtime does; returns it."""
    model = Model.of(source)
    module, feeds = to_module(model), feeds_of(model, size)
    expected = session.inference_session(model.to_proto(), "reference", optimize=False).run(None, feeds)
    with torch.no_grad():
        results = module.compute(feeds)
    for name, theirs in zip(module.outputs, expected, strict=True):
        assert difference(results[name], theirs) < TOLERANCE, name
    return module
