"""Least squares for a reader: ``min |X W - Y|^2 + d |W - W0|^2``, for every group that the reader keeps apart at once.

Where the reader's output goes through a rectifier, what is below its bound in the original and in the pruned network need not
be matched: targets there give way to the prediction (after Zhang et al. 2016, "Accelerating Very Deep Convolutional Networks",
who fit the response behind the nonlinearity). Each such step lowers ``sum (p - t)^2`` where *t* is the target, or the prediction
*p* where both are cut off, by majorisation; that is an upper bound of the error behind the rectifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.linear.definite import Factors
from onnxprune.linear.products import gram, product

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["MOST_FEATURES", "Moments", "Regression", "Solver", "with_ones"]

MOST_FEATURES = 4700
"""Features up to which Gram matrices of features are made; 512 channels under a 3 x 3 kernel are 4,608."""


def with_ones(rows: Array) -> Array:
    """Rows with a last feature that is always 1, for the bias. [groups, rows, features + 1]"""
    return np.concatenate([rows, np.ones((*rows.shape[:2], 1), rows.dtype)], 2)


@dataclass(frozen=True)
class Regression:
    """Rows and their targets.

    Attributes:
        x: features, a last 1 included where the problem is affine. float32 [groups, rows, features]
        y: what is matched. float32 [groups, rows, outputs]
        offset: what is added to the prediction before it is bounded and compared, or nothing. [groups, rows, outputs]
        low: bound of the rectifier behind, minus infinity where there is none.
        high: its upper bound.
        affine: whether the last feature is the bias, which is not damped.
    """

    x: Array
    y: Array
    offset: Array | None
    low: float
    high: float
    affine: bool

    @property
    def rectified(self) -> bool:
        """True where a rectifier behind cuts anything off."""
        return self.low > -np.inf or self.high < np.inf

    @property
    def dual(self) -> bool:
        """Say whether features are too many, so that the Gram matrix is that of the rows."""
        return bool(self.x.shape[2] > MOST_FEATURES)

    @cached_property
    def gram(self) -> Array:
        """Products of features, summed over rows; in dual form products of rows, summed over features."""
        return gram(self.x.transpose(0, 2, 1) if self.dual else self.x)

    def moments(self, start: Array) -> Moments:
        """The moments that a least squares step away from some weights depends on, where features are not too many."""
        residual = self.residual(start, rectified=False)
        cross = product(self.x.transpose(0, 2, 1), residual)
        return Moments(self.gram, cross, float(np.vdot(residual, residual)), residual.size, self.affine)

    def part(self, rows: slice | Array) -> Regression:
        """The same for some of the rows."""
        offset = None if self.offset is None else self.offset[:, rows]
        return Regression(self.x[:, rows], self.y[:, rows], offset, self.low, self.high, self.affine)

    def error(self, w: Array) -> float:
        """Mean squared error behind the rectifier."""
        gap = self._bounded(self._predict(w))
        gap -= self._bounded(self.y)
        return float(np.square(gap, out=gap).mean())

    def solver(self, damping: float, gram: Array | None = None) -> Solver:
        """A solver for a ridge relative to the mean diagonal of the Gram matrix, which may be known already."""
        return Solver(self, damping, gram)

    def _predict(self, w: Array) -> Array:
        predicted = product(self.x, w.astype(np.float32))
        if self.offset is not None:
            predicted += self.offset
        return predicted

    def _bounded(self, values: Array) -> Array:
        """What the rectifier makes of values."""
        found: Array = np.clip(values, self.low, self.high) if self.rectified else values
        return found

    def residual(self, w: Array, *, rectified: bool) -> Array:
        """The target minus the prediction; 0 where both are cut off, if ``rectified``. [groups, rows, outputs]"""
        predicted = self._predict(w)
        found: Array = self.y - predicted
        if rectified:  # one that is cut off gives way to the prediction, up to the bound
            if self.low > -np.inf:
                beyond = self.low - predicted
                np.copyto(found, np.minimum(beyond, 0, out=beyond), where=self.y <= self.low)
            if self.high < np.inf:
                beyond = self.high - predicted
                np.copyto(found, np.maximum(beyond, 0, out=beyond), where=self.y >= self.high)
        return found


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of features, and of what predictions lack; those of all rows are the sum of those of parts.

    Attributes:
        gram: products of features. float32 [groups, features, features]
        cross: products of features with the residual. float32 [groups, features, outputs]
        power: the residual, squared and summed.
        count: its entries.
        affine: whether the last feature is the bias, which is not damped.
    """

    gram: Array
    cross: Array
    power: float
    count: int
    affine: bool

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram, self.cross + other.cross, self.power + other.power, self.count + other.count, self.affine
        )

    def step(self, damping: float) -> Array:
        """The step that lowers the squared error most under a ridge. float64 [groups, features, outputs]"""
        # s = (X'X + D)^-1 X'r
        return Factors(_damped(self.gram, damping, affine=self.affine)[0]).solve(self.cross)

    def error(self, step: Array) -> float:
        """Mean squared error after a step, without the rectifier behind."""
        # |r - X s|^2 = |r|^2 + tr(s' X'X s) - 2 tr(s' X'r)
        lowered = np.vdot(step, self.gram.astype(np.float64) @ step) - 2 * np.vdot(step, self.cross)
        return (self.power + float(lowered)) / max(self.count, 1)


def _dual(gram: Array, damping: float, features: int, *, affine: bool) -> tuple[Array, Array]:
    """Damp a Gram matrix of rows: a bias that is not damped takes up what rows have in common, so that they are centred."""
    matrix = gram.astype(np.float64)
    rows = matrix.shape[1]
    power = np.einsum("grr->g", matrix) - (rows if affine else 0)
    ridge = np.repeat((damping * power / (features - affine))[:, None] + 1e-12, rows, 1)
    if affine:
        matrix -= matrix.mean(1, keepdims=True)
        matrix -= matrix.mean(2, keepdims=True)
    at = np.arange(rows)
    matrix[:, at, at] += ridge
    return matrix, ridge


def _damped(gram: Array, damping: float, *, affine: bool) -> tuple[Array, Array]:
    """A Gram matrix of features in double precision with a ridge on its diagonal, and the ridge. [groups, features]"""
    matrix = gram.astype(np.float64)
    diagonal = np.einsum("gff->gf", matrix)
    ridge = np.repeat(damping * diagonal[:, : -1 if affine else None].mean(1, keepdims=True) + 1e-12, matrix.shape[1], 1)
    if affine:
        ridge[:, -1] = 1e-9 * diagonal[:, -1]
    at = np.arange(matrix.shape[1])
    matrix[:, at, at] += ridge
    return matrix, ridge


class Solver:
    """A regression whose Gram matrix is damped once: that of the features, or where they are too many that of the rows."""

    def __init__(self, problem: Regression, damping: float, gram: Array | None = None) -> None:
        """``gram``: that of the problem, where it is known."""
        self._problem = problem
        self._turned = problem.x.transpose(0, 2, 1)
        gram, affine = problem.gram if gram is None else gram, problem.affine
        dual, features = problem.dual, problem.x.shape[2]
        matrix, self._ridge = _dual(gram, damping, features, affine=affine) if dual else _damped(gram, damping, affine=affine)
        self._factors = Factors(matrix)

    def solve(self, start: Array, near: Array, *, rectified: bool = False) -> Array:
        """The solution for the targets at ``start``, where what is rectified away gives way; drawn towards ``near``.

        Args:
            start: the weights that decide what gives way; any, if nothing is ``rectified``. [groups, features, outputs]
            near: the weights that the ridge pulls to. [groups, features, outputs]
            rectified: whether the rectifier is taken into account.

        Returns:
            float64 [groups, features, outputs].
        """
        residual = self._problem.residual(start, rectified=rectified)
        if self._problem.dual:
            return near + self._dual(residual + product(self._problem.x, (start - near).astype(np.float32)))
        # W = start + (X'X + D)^-1 (X'r + D (near - start))
        return start + self._factors.solve(product(self._turned, residual) + self._ridge[:, :, None] * (near - start))

    def _dual(self, gap: Array) -> Array:
        """The step that closes a gap [groups, rows, outputs] as far as the ridge lets it."""
        affine = self._problem.affine
        mean = gap.mean(1, keepdims=True, dtype=np.float64) if affine else 0.0
        # X' (XX' + d)^-1 gap is (X'X + d)^-1 X' gap, with a matrix of rows to invert
        step = product(self._turned, self._factors.solve(gap - mean).astype(np.float32))
        if affine:
            step[:, -1:] = 0
            step[:, -1:] = mean - product(self._problem.x.mean(1, keepdims=True), step)
        return step
