"""Least squares for a layer some of whose weights are zero: ``min tr W'HW - 2 tr W'C``, *W* zero outside of a mask.

*H* [features, features] are the damped second moments of the layer's input and *C* [features, outputs] those with its targets,
both centred where the layer has a bias, which then follows from the means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.linear.products import lift, product

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array
    from onnxprune.linear.regression import Regression
    from onnxprune.sparse.patterns import Mask

__all__ = ["QuadraticProblem", "masked"]

_STEPS = 100
"""Steps of conjugate gradients, at most; exact arithmetic needs as many as there are weights of an output."""
_PRECISE = 1e-12
"""Share of the gradient, in the metric of the preconditioner, at which a fit is good enough."""


@dataclass(frozen=True)
class QuadraticProblem:
    """The problem, for every group that the layer keeps apart.

    Attributes:
        hessian: damped. float64 [groups, features, features]
        ridge: what was added to its diagonal. float64 [groups]
        cross: with the targets, and with the weights that the damping pulls to. float64 [groups, features, outputs]
        mean: of the features; zero where there is no bias. float64 [groups, features]
        target: mean of the targets, likewise. float64 [groups, outputs]
    """

    hessian: Array
    ridge: Array
    cross: Array
    mean: Array
    target: Array

    @classmethod
    def of(cls, rows: Regression, weights: Array, damping: float) -> QuadraticProblem:
        """The problem of some rows.

        Args:
            rows: with their targets.
            weights: what the damping pulls to; the bias last where there is one. [groups, features (+ 1), outputs]
            damping: relative to the mean diagonal.
        """
        gram = rows.gram.astype(np.float64) / max(rows.x.shape[1], 1)
        mean = gram[:, -1, :-1] if rows.affine else np.zeros(gram.shape[:2])
        found = cls.centred(gram[:, :-1, :-1] if rows.affine else gram, mean, damping)
        return found.aim(rows, rows.y if rows.offset is None else rows.y - rows.offset, weights)

    @classmethod
    def centred(cls, gram: Array, mean: Array, damping: float) -> QuadraticProblem:
        """The problem of some moments, without targets yet. [groups, features, features], [groups, features]"""
        # H = E[x x'] - m m' + ridge
        hessian = gram.astype(np.float64) - mean[:, :, None] * mean[:, None, :]
        at = np.arange(gram.shape[1])
        # Where features hardly vary, the difference is the rounding of float32 moments, of either sign: the ridge covers that.
        rounding = np.finfo(np.float32).eps * np.einsum("gff->g", gram.astype(np.float64))
        spread = hessian[:, at, at].mean(1)
        ridge = np.maximum(np.where(spread > rounding, damping * spread, rounding), lift(hessian)) + 1e-12
        hessian[:, at, at] += ridge[:, None]
        return cls(hessian, ridge, np.zeros(0), mean, np.zeros(0))

    def aim(self, rows: Regression, targets: Array, weights: Array) -> QuadraticProblem:
        """The same rows with these targets; the damping pulls to ``weights``. [groups, rows, outputs]"""
        cross = product(rows.x.transpose(0, 2, 1), targets).astype(np.float64) / max(rows.x.shape[1], 1)
        target = np.zeros((len(cross), cross.shape[2]))
        if rows.affine:
            target = cross[:, -1]
            # C = E[x t'] - m E[t]' + ridge W0
            cross = cross[:, :-1] - self.mean[:, :, None] * target[:, None, :]
            weights = weights[:, :-1]
        return self.towards(cross + self.ridge[:, None, None] * weights, target)

    def towards(self, cross: Array, target: Array) -> QuadraticProblem:
        """The same with another ``cross`` and ``target``."""
        return replace(self, cross=cross, target=target)

    @cached_property
    def scale(self) -> Array:
        """The factor of each feature that makes the diagonal 1. [groups, features, 1]"""
        found: Array = 1 / np.sqrt(np.einsum("gff->gf", self.hessian))[:, :, None]
        return found

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues and vectors of the Hessian at a unit diagonal. [groups, features], [groups, features, features]"""
        found: tuple[Array, Array] = np.linalg.eigh(self.hessian * self.scale * self.scale.transpose(0, 2, 1))
        return found

    @cached_property
    def factor(self) -> Array:
        """The upper Cholesky factor of the inverse Hessian. [groups, features, features]"""
        found: Array = np.linalg.cholesky(np.linalg.inv(self.hessian)).transpose(0, 2, 1)
        return found

    def dense(self) -> Array:
        """The solution without a mask. [groups, features, outputs]"""
        found: Array = np.linalg.solve(self.hessian, self.cross)
        return found

    def whole(self, weights: Array) -> Array:
        """Weights with the bias that suits them as last feature. [groups, features + 1, outputs]"""
        # b = E[t] - m' W
        bias = self.target - np.einsum("gf,gfo->go", self.mean, weights)
        return np.concatenate([weights, bias[:, None]], 1)


def masked(problem: QuadraticProblem, mask: Mask, start: Array) -> Array:
    """The solution within a mask, by conjugate gradients for every output at once (as Meng et al. 2024, "ALPS").

    Args:
        problem: the problem.
        mask: where weights may differ from zero. [groups, features, outputs]
        start: near the solution, the better the fewer steps. [groups, features, outputs]
    """
    h = problem.hessian
    scale = np.einsum("gff->gf", h)[:, :, None]
    weights = start * mask
    residual = (problem.cross - h @ weights) * mask
    toward = residual / scale
    direction = toward
    power = (residual * toward).sum(1, keepdims=True)
    goal = _PRECISE * np.maximum((np.square(problem.cross) / scale).sum(1, keepdims=True), 1e-300)
    for _ in range(_STEPS):
        going = power > goal  # an output that has arrived stays where it is: there, steps are ratios of rounding errors
        if not going.any():
            break
        bent = (h @ direction) * mask
        curved = (direction * bent).sum(1, keepdims=True)
        # length = r'z / d'Hd; W += length d; r -= length H d; z = r / diag(H); d = z + (r'z / previous r'z) d
        length = np.where(going & (curved > 0), power / np.where(curved > 0, curved, 1), 0)
        weights = weights + length * direction
        residual = residual - length * bent
        toward = residual / scale
        before, power = power, (residual * toward).sum(1, keepdims=True)
        direction = toward + np.where(going, power / np.where(going, before, 1), 0) * direction
    return weights
