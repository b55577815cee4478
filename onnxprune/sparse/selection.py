"""Selection: which weights of a layer stay, for any pattern.

``magnitude`` looks at weights alone; ``wanda`` multiplies them with the size of what they read (Sun et al. 2024). ``obs`` goes
through the channels in order, drops what costs least there and lets the channels behind make up for it (Frantar and Alistarh
2023, "SparseGPT"). ``admm`` alternates between the least squares solution and its projection on the pattern until both agree
(Boyd et al. 2011; Meng et al. 2024, "ALPS"): it weighs all weights against each other, and finds the better masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.options.registries import CRITERIA, METHODS
from onnxprune.options.registry import SAMPLES, TORCH

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.fit import QuadraticProblem
    from onnxprune.sparse.patterns import Mask, Pattern

__all__ = ["admm_selection", "magnitude_mask", "obs_selection", "random_mask", "split_taps", "wanda_mask"]

_COLUMNS = 32
"""Features, about, that OBS decides upon at once."""
_ROUNDS = 120
"""Rounds of ADMM, at most."""
_PENALTY = 0.05
"""The penalty of the first rounds of ADMM; the mean diagonal is 1."""
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""The factor of the penalty by the share of the mask that changed in three rounds: the more it settles, the gentler (ALPS)."""


def split_taps(matrix: Array, taps: int) -> Array:
    """A matrix [groups, features, outputs] as patterns see it. [groups, channels, taps, outputs]"""
    groups, features, outputs = matrix.shape
    return matrix.reshape(groups, features // taps, taps, outputs)


@METHODS.register("admm", needs=(SAMPLES,))
def admm_selection(problem: QuadraticProblem, weights: Array, taps: int, pattern: Pattern, keep: int) -> tuple[Array, Mask]:
    """Alternating directions: the least squares solution near the projected weights, and the projection of that.

    Features are scaled to a unit diagonal, as in ALPS. The penalty grows as the mask settles, so that both come together.

    Args:
        problem: whose Hessian it is.
        weights: the best ones without a mask. [groups, features, outputs]
        taps: of a kernel.
        pattern: what may be kept.
        keep: how many weights stay.

    Returns:
        Weights near the best within the mask, and the mask. [groups, features, outputs]
    """
    scale, (values, vectors) = problem.scale, problem.spectrum
    turned, best = vectors.transpose(0, 2, 1), weights / scale
    pull = vectors @ (values[:, :, None] * (turned @ best))

    def project(x: Array) -> Mask:
        return pattern.mask(split_taps(np.square(x), taps), keep).reshape(x.shape)

    mask = last = project(best)
    sparse, dual, penalty = best * mask, np.zeros_like(best), _PENALTY
    for count in range(1, _ROUNDS + 1):
        # x = (H + p)^-1 (H best - dual + p sparse), by the eigenvectors of H
        near = vectors @ ((turned @ (pull - dual + penalty * sparse)) / (values[:, :, None] + penalty))
        aim = near + dual / penalty
        mask = project(aim)
        sparse = aim * mask
        dual = dual + penalty * (near - sparse)
        if count % 3 == 0:
            changed = float((mask != last).sum() / max(2 * mask.sum(), 1))
            last = mask
            if not changed and count > 20:
                break
            penalty *= next((factor for share, factor in _GROWTH if changed > share), 1.1)
    return sparse * scale, mask


@METHODS.register("obs", needs=(SAMPLES,))
def obs_selection(problem: QuadraticProblem, weights: Array, taps: int, pattern: Pattern, keep: int) -> tuple[Array, Mask]:
    """Optimal brain surgery in one sweep over the channels, for every output at once.

    With ``U`` the upper Cholesky factor of the inverse Hessian, dropping weight *w* of feature *i* costs ``(w / U_ii)^2`` when
    all before it are settled, and changes those behind it by ``-w / U_ii * U_i.``.

    Args:
        problem: whose Hessian it is.
        weights: the best ones without a mask. [groups, features, outputs]
        taps: of a kernel.
        pattern: what may be kept.
        keep: how many weights stay; every stretch of channels keeps the same share.

    Returns:
        The weights, zero where they are dropped, and the mask. [groups, features, outputs]
    """
    features = weights.shape[1]
    weights, mask = weights.copy(), np.zeros(weights.shape, bool)
    upper = problem.factor
    pivots = np.einsum("gff->gf", upper)[:, :, None]
    unit = pattern.span(features // taps) * taps
    step, done = max(1, _COLUMNS // unit) * unit, 0
    for start in range(0, features, step):
        stop = min(start + step, features)
        part = weights[:, start:stop]
        upto = round(keep * stop / features)
        kept = pattern.mask(split_taps(np.square(part / pivots[:, start:stop]), taps), upto - done).reshape(part.shape)
        mask[:, start:stop], done = kept, done + int(np.count_nonzero(kept)) if not pattern.fixed else 0
        steps = np.zeros_like(part)
        for at in range(start, stop):
            steps[:, at - start] = np.where(kept[:, at - start], 0, weights[:, at]) / pivots[:, at]
            weights[:, at:stop] -= upper[:, at, at:stop, None] * steps[:, None, at - start]
        weights[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ steps
    return weights * mask, mask


@METHODS.register("wanda", needs=(SAMPLES,))
def wanda_mask(weights: Array, energy: Array, taps: int, pattern: Pattern, keep: int) -> Mask:
    """The largest weights times the root mean square of what they read; ``energy`` is its square. [groups, features]"""
    return pattern.mask(split_taps(np.square(weights) * energy[:, :, None], taps), keep).reshape(weights.shape)


@METHODS.register("magnitude")
def magnitude_mask(weights: Array, taps: int, pattern: Pattern, keep: int) -> Mask:
    """The largest weights. [groups, features, outputs]"""
    return pattern.mask(split_taps(np.square(weights), taps), keep).reshape(weights.shape)


@METHODS.register("random")
def random_mask(weights: Array, taps: int, pattern: Pattern, keep: int, rng: np.random.Generator) -> Mask:
    """Seeded noise: the control that every method has to beat. [groups, features, outputs]"""
    return pattern.mask(split_taps(np.asarray(rng.random(weights.shape)), taps), keep).reshape(weights.shape)


for _entry in CRITERIA.values():
    if TORCH in _entry.needs:  # a score of each weight, of which channels get the sum
        METHODS.add(_entry.name, _entry.stored, _entry.help, _entry.needs)
