"""The divergence of the outputs of a changed model from the original's; no labels are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["WORST", "comparable", "cosines", "divergence", "finite_rows", "log_softmax"]

WORST = 1e3
"""The divergence of an output that is not finite where the original's is: large, and finite so that means are."""


def log_softmax(logits: Array) -> Array:
    """Along the last axis, in float64."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    result: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return result


def divergence(outputs: Sequence[Any], reference: Sequence[Any]) -> float:
    """Mean over the floating-point outputs of a batch: 0 where they are equal.

    An output [samples, classes] counts with the Kullback-Leibler divergence of its softmax from the reference's (of the output
    itself where it is probabilities), any other with the squared error over the variance of the reference, and one of another
    shape with 1, as if it were unrelated. Entries that are not finite in the reference (classes masked out) do not count.
    Where no output is floating-point, the others count, with the share of entries that differ.
    """
    pairs = [(a, b) for a, b in zip(outputs, reference, strict=True) if isinstance(b, np.ndarray) and b.size]
    floating = [(a, b) for a, b in pairs if _is_floating(b)]
    found = [_one(a, b) for a, b in floating] or [float(np.mean(a != b)) if a.shape == b.shape else 1.0 for a, b in pairs]
    return float(np.mean(found)) if found else 0.0


def comparable(a: Any, b: Any) -> bool:
    """Tell whether two outputs are floating-point tensors of one shape, with entries."""
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape and bool(a.size) and _is_floating(b)


def finite_rows(a: Array, b: Array) -> tuple[Array, Array]:
    """A batch of outputs and the reference's as rows of float64, a row for each sample, without anything that is not finite.

    Entries that are not finite in the reference (no pitch, classes masked out) are 0 in both. A sample that is not finite where
    the reference is becomes 0 altogether: nothing of it is right.
    """
    x, y = (v.astype(np.float64).reshape(v.shape[0] if v.ndim > 1 else 1, -1) for v in (a, b))
    known = np.isfinite(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    return np.where(np.isfinite(x).all(1, keepdims=True), x, 0.0), y


def cosines(x: Array, y: Array) -> Array:
    """The cosine similarity of each row of one matrix to the other's; 1 where both are 0."""
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    alike = np.where(x.any(1) | y.any(1), 0.0, 1.0)
    result: Array = np.where(norms > 0, (x * y).sum(1) / np.maximum(norms, 1e-300), alike)
    return result


def _is_floating(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating)) or str(array.dtype) == "bfloat16"


def _one(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return 1.0
    with np.errstate(invalid="ignore"):  # of infinities
        value = _kullback_leibler(a, b) if b.ndim == 2 and b.shape[1] > 1 else _squared(a, b)
    return value if np.isfinite(value) else WORST


def _kullback_leibler(a: Array, b: Array) -> float:
    p, q = (log_softmax(np.log(np.maximum(v, 1e-30)) if _distribution(b) else v) for v in (b, a))
    return float(np.where(np.isfinite(b), np.exp(p) * (p - q), 0).sum(-1).mean())


def _squared(a: Array, b: Array) -> float:
    counted = np.isfinite(b)
    a, b = a[counted].astype(np.float64), b[counted].astype(np.float64)
    return float(np.square(a - b).mean() / max(b.var(), 1e-30)) if b.size else 0.0


def _distribution(rows: Array) -> bool:
    """Tell whether rows are probabilities already."""
    return bool(rows.min() >= 0 and np.allclose(rows.sum(-1), 1, atol=1e-3))
