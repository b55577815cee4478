"""One layer made sparse: its mask by a method, and the weights that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.linear.products import product
from onnxprune.sparse.fit import QuadraticProblem, masked
from onnxprune.sparse.selection import admm_selection, magnitude_mask, obs_selection, random_mask, split_taps, wanda_mask

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array
    from onnxprune.linear.regression import Regression
    from onnxprune.sparse.layers import Layer
    from onnxprune.sparse.patterns import Mask, Pattern

__all__ = ["SPARSE_RIDGES", "Sparser"]

SPARSE_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that are tried, relative to the mean diagonal; rows that the fit did not see decide. The second is taken where no rows
are left to decide."""
FITTED = frozenset({"admm", "obs", "wanda"})
"""Methods that go by what layers read."""
ROUNDS = 2
"""Steps towards the least error behind a rectifier."""


@dataclass(frozen=True)
class Sparser:
    """Attributes:
    pattern: what may be kept.
    method: how the mask is chosen: ``admm``, ``obs``, ``wanda``, ``magnitude``, ``random``, or any other by ``importance``.
    refit: whether weights that stay make up for those that go. (``obs`` makes up for them as it goes; then it stops there.)
    importance: of each weight, by the name of the layer, in the shape of its weight; higher stays.
    """

    pattern: Pattern
    method: str
    refit: bool = True
    importance: Mapping[str, Array] = field(default_factory=dict)

    def mask(self, layer: Layer, weights: Array, keep: int, rng: np.random.Generator) -> Mask:
        """A mask that needs no data. [groups, features, outputs]"""
        if keep >= layer.size:
            return np.ones(weights.shape, bool)
        if self.method == "random":
            return random_mask(weights, layer.reader.taps, self.pattern, keep, rng)
        if self.method not in {*FITTED, "magnitude"}:
            scores = layer.reader.matrix(self.importance[layer.name]) / layer.reader.scale[0]
            return self.pattern.mask(split_taps(scores, layer.reader.taps), keep).reshape(weights.shape)
        return magnitude_mask(weights, layer.reader.taps, self.pattern, keep)

    def choose(
        self, layer: Layer, problem: QuadraticProblem, weights: Array, energy: Array, keep: int, rng: np.random.Generator
    ) -> tuple[Array, Mask]:
        """Weights and their mask.

        Args:
            layer: whose weights they are.
            problem: the least squares problem that they solve.
            weights: those of the original. [groups, features, outputs]
            energy: mean square of the features. [groups, features]
            keep: how many stay.
            rng: for the method ``random``.
        """
        taps = layer.reader.taps
        if keep >= layer.size:
            return problem.dense() if self.refit else weights, np.ones(weights.shape, bool)
        if self.method not in FITTED:
            mask = self.mask(layer, weights, keep, rng)
            return weights * mask, mask
        if self.method == "wanda":
            mask = wanda_mask(weights, energy, taps, self.pattern, keep)
            return weights * mask, mask
        best = problem.dense() if self.refit else weights
        return (admm_selection if self.method == "admm" else obs_selection)(problem, best, taps, self.pattern, keep)

    def damping(self, layer: Layer, fit: Regression, judge: Regression, start: Array, keep: int) -> float:
        """The ridge under which a quickly chosen mask does best on rows that were not fitted; arguments as those of `fit`."""
        if fit is judge or fit.dual or not judge.y.size:
            return SPARSE_RIDGES[1]
        affine = fit.affine
        weights = start[:, :-1] if affine else start
        mask = wanda_mask(weights, self._energy(fit, weights), layer.reader.taps, self.pattern, keep)
        mask |= keep >= layer.size
        errors = {}
        for damping in SPARSE_RIDGES:
            problem = QuadraticProblem.of(fit, start, damping)
            found = masked(problem, mask, weights)
            errors[damping] = judge.error(problem.whole(found) if affine else found)
        return min(errors, key=lambda damping: errors[damping])

    @staticmethod
    def _energy(rows: Regression, weights: Array) -> Array:
        """Mean squares of the features. [groups, features]"""
        found: Array = np.einsum("grf,grf->gf", rows.x, rows.x)[:, : weights.shape[1]] / max(rows.x.shape[1], 1)
        return found

    def fit(self, layer: Layer, rows: Regression, start: Array, damping: float, keep: int, rng: np.random.Generator) -> Array:
        """The sparse weights that map rows to their targets.

        Args:
            layer: whose weights they are.
            rows: the input of the layer in the sparse network, and its targets.
            start: the weights of the original, the bias last where there is one. [groups, features (+ 1), outputs]
            damping: relative to the mean diagonal.
            keep: how many weights stay.
            rng: for the method ``random``.
        """
        affine = rows.affine
        weights = start[:, :-1] if affine else start
        energy = self._energy(rows, weights)
        if rows.dual:
            mask = self.mask(layer, weights * np.sqrt(energy)[:, :, None], keep, rng)
            return _settled(rows, start, mask)
        problem = QuadraticProblem.of(rows, start, damping)
        found, mask = self.choose(layer, problem, weights, energy, keep, rng)
        if not self.refit:
            return np.concatenate([found, start[:, -1:]], 1) if affine else found
        found = masked(problem, mask, found)
        for _ in range(ROUNDS if rows.rectified else 0):
            present = problem.whole(found) if affine else found
            targets = product(rows.x, present.astype(np.float32)) + rows.residual(present, rectified=True)
            problem = problem.aim(rows, targets, start)
            found = masked(problem, mask, found)
        return problem.whole(found) if affine else found


def _settled(rows: Regression, start: Array, mask: Mask) -> Array:
    """Masked weights that stay as they are, and the bias that makes up for the mean of the others, if there is one."""
    if not rows.affine:
        return start * mask
    found = start * np.pad(mask, ((0, 0), (0, 1), (0, 0)), constant_values=True)
    found[:, -1] += rows.residual(found, rectified=False).mean(1)
    return found
