"""How far the outputs of a changed model are from the original's, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxprune.weights import Array

__all__ = ["comparable", "divergence", "log_softmax"]


def log_softmax(logits: Array) -> Array:
    """Along the last axis, in float64."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    result: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return result


def divergence(outputs: Sequence[Any], reference: Sequence[Any]) -> float:
    """Mean over a batch and its floating-point outputs: 0 where they are equal.

    An output [samples, classes] counts with the Kullback-Leibler divergence of its softmax from the reference's, any other with
    the squared error over the variance of the reference.
    """
    found = [_one(a, b) for a, b in zip(outputs, reference, strict=True) if comparable(a, b)]
    return float(np.mean(found)) if found else 0.0


def comparable(a: Any, b: Any) -> bool:
    """Whether two outputs are floating-point tensors of one shape."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape or not a.size:
        return False
    return bool(np.issubdtype(b.dtype, np.floating)) or str(b.dtype) == "bfloat16"


def _one(a: Array, b: Array) -> float:
    if b.ndim == 2 and b.shape[1] > 1:
        p, q = (log_softmax(np.log(np.maximum(v, 1e-30)) if _distribution(b) else v) for v in (b, a))
        return float((np.exp(p) * (p - q)).sum(-1).mean())
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.square(a - b).mean() / max(b.var(), 1e-30))


def _distribution(rows: Array) -> bool:
    """Whether rows are probabilities already."""
    return bool(rows.min() >= 0 and np.allclose(rows.sum(-1), 1, atol=1e-3))
