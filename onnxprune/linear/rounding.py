"""Weights on a grid: each is rounded in turn, and those that are not rounded yet make up for what it lost.

With a damped Gram matrix ``H`` of the features and ``U`` the upper Cholesky factor of its inverse, ``H^-1 = U' U``, rounding the
row *i* of ``W`` to ``Q_i`` costs least if the rows behind it change by ``-U_ij (W_i - Q_i) / U_ii`` (Frantar et al. 2023, "GPTQ",
after the optimal brain surgeon). The bias comes last and is not rounded: it takes up what is left of the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from onnxprune.ir.weights import Array

__all__ = ["nearest_on_grid", "rounded"]

ROUNDING_DAMPING = 1e-2
"""Added to the diagonal of a Gram matrix, relative to its mean, as GPTQ has it."""
_BIAS_DAMPING = 1e-9
"""Of the bias: it is not rounded, and need not stay near what it was."""
_BLOCK = 128
"""Rows that are rounded before those behind the block learn of it: one large product is faster than many small ones."""


def nearest_on_grid(weights: Array, steps: Array, bound: int) -> Array:
    """The multiples of steps that are nearest to weights, at most ``bound`` steps from zero."""
    found: Array = np.clip(np.rint(weights / steps), -bound, bound) * steps
    return found


def rounded(gram: Array, weights: Array, steps: Array, bound: int, may: npt.NDArray[np.bool_]) -> Array:
    """Weights on their grid that output about what the given ones do.

    Args:
        gram: products of features, summed over rows; of the bias, too, where there is one. [groups, features (+ 1), same]
        weights: to be rounded; a last row, the bias, is not. [groups, features (+ 1), outputs]
        steps: of the grid at each weight. [groups, features, outputs]
        bound: steps that a weight is from zero, at most.
        may: false where a weight is zero and stays so. [groups, features, outputs]

    Returns:
        float64, shaped as ``weights``.
    """
    features = steps.shape[1]
    order = np.argsort(-np.einsum("gff->gf", gram)[:, :features], 1, kind="stable")  # what counts most is rounded first
    found = weights.astype(np.float64)
    found[:, :features] = np.take_along_axis(found[:, :features], order[:, :, None], 1)
    grid = np.take_along_axis(steps.astype(np.float64), order[:, :, None], 1)
    moves = np.take_along_axis(may, order[:, :, None], 1)
    upper = _factor(gram, order)
    for begin in range(0, features, _BLOCK):
        end = min(begin + _BLOCK, features)
        lost = np.zeros((len(found), end - begin, found.shape[2]))
        for at in range(begin, end):
            whole = nearest_on_grid(found[:, at], grid[:, at], bound) * moves[:, at]
            lost[:, at - begin] = (found[:, at] - whole) / upper[:, at, at, None]
            found[:, at] = whole
            found[:, at + 1 : end] -= upper[:, at, at + 1 : end, None] * lost[:, at - begin, None]
        found[:, end:] -= upper[:, begin:end, end:].transpose(0, 2, 1) @ lost
    result = found.copy()
    np.put_along_axis(result[:, :features], order[:, :, None], found[:, :features], 1)
    return result


def _factor(gram: Array, order: Array) -> Array:
    """The upper Cholesky factor of the inverse of a damped Gram matrix, in a new order of features; the bias stays last."""
    size, features = gram.shape[1], order.shape[1]
    places = np.concatenate([order, np.broadcast_to(np.arange(features, size), (len(gram), size - features))], 1)
    matrix = np.take_along_axis(np.take_along_axis(gram.astype(np.float64), places[:, :, None], 1), places[:, None, :], 2)
    diagonal = np.einsum("gff->gf", matrix)
    mean = diagonal[:, :features].mean(1)
    at = np.arange(features)
    matrix[:, at, at] += ROUNDING_DAMPING * mean[:, None] + 1e-12
    if size > features:
        matrix[:, -1, -1] *= 1 + _BIAS_DAMPING
    # J H J = L L', where J reverses the order; J L J is upper, H = (J L J) (J L J)', and U = (J L J)^-1
    lower = np.linalg.cholesky(matrix[:, ::-1, ::-1])
    found: Array = np.linalg.inv(lower[:, ::-1, ::-1])
    return found
