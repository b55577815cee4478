"""Masks against trying every one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Array
from onnxprune.sparse.fit import QuadraticProblem, masked
from onnxprune.sparse.patterns import BlockPattern, Mask, NofM, Pattern, Unstructured
from onnxprune.sparse.selection import admm_selection, magnitude_mask, obs_selection, wanda_mask


def problem(seed: int, *, features: int = 8, outputs: int = 1, groups: int = 1) -> tuple[QuadraticProblem, Array]:
    """Correlated features, and the weights that solve it."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, 5 * features, features)) @ rng.standard_normal((groups, features, features))
    weights = rng.standard_normal((groups, features, outputs))
    hessian = x.transpose(0, 2, 1) @ x / (5 * features) + 1e-1 * np.eye(features)
    zero = np.zeros((groups, features))
    return QuadraticProblem(hessian, np.zeros(groups), hessian @ weights, zero, np.zeros((groups, outputs))), weights


def loss(found: QuadraticProblem, weights: Array, mask: Mask) -> float:
    """The error of the best weights within a mask."""
    gap = masked(found, mask, weights) - weights
    return float(np.einsum("gfo,gfh,gho->", gap, found.hessian, gap))


def every(shape: tuple[int, ...], pattern: Pattern, keep: int) -> list[Mask]:
    """Every mask with so many elements that the pattern allows."""
    size, found = int(np.prod(shape)), []
    for chosen in itertools.combinations(range(size), keep):
        mask = np.zeros(size, bool)
        mask[list(chosen)] = True
        if pattern.allows(mask.reshape(1, shape[1], 1, -1)):
            found.append(mask.reshape(shape))
    return found


@pytest.mark.parametrize(("pattern", "keep"), [(Unstructured(), 3), (Unstructured(), 5), (NofM(2, 4), 4)], ids=str)
def test_admm_is_near_the_best_of_all_masks(pattern: Pattern, keep: int) -> None:
    gaps, others = [], []
    for seed in range(12):
        found, weights = problem(seed)
        losses = [loss(found, weights, mask) for mask in every(weights.shape, pattern, keep)]
        mine = loss(found, weights, admm_selection(found, weights, 1, pattern, keep)[1])
        gaps.append((mine - min(losses)) / (np.median(losses) - min(losses)))
        others.append(loss(found, weights, magnitude_mask(weights, 1, pattern, keep)) >= mine - 1e-9)
    assert np.median(gaps) < 0.05
    assert np.mean(others) > 0.7


def error(found: QuadraticProblem, weights: Array, new: Array) -> float:
    """Of some weights as they are."""
    gap = new - weights
    return float(np.einsum("gfo,gfh,gho->", gap, found.hessian, gap))


@pytest.mark.parametrize("pattern", [Unstructured(), NofM(2, 4), BlockPattern(2, 1), BlockPattern(0, 1, taps=True)], ids=str)
def test_admm_beats_obs_beats_magnitude_on_average(pattern: Pattern) -> None:
    sums = np.zeros(3)
    for seed in range(8):
        found, weights = problem(seed, features=48, outputs=6)
        mask = admm_selection(found, weights, 3, pattern, 144)[1]
        swept = obs_selection(found, weights, 3, pattern, 144)[0]
        cut = weights * magnitude_mask(weights, 3, pattern, 144)
        sums += [loss(found, weights, mask), error(found, weights, swept), error(found, weights, cut)]
    assert sums[0] < sums[1] < sums[2]


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_one_weight_that_obs_drops_is_the_cheapest_there(seed: int, at: int) -> None:
    """The update is Hassibi's: what dropping a weight costs, and what the others become, as solving again has it."""
    found, weights = problem(seed)
    hessian = found.hessian[0]

    class Only(Unstructured):
        def mask(self, scores: Array, keep: int) -> Mask:
            return np.array(np.arange(scores.size) != at).reshape(scores.shape)

    new, mask = obs_selection(found, weights, 1, Only(), 7)
    assert mask.sum() == 7
    # Those before it were settled already: only those behind it may make up for it.
    free = np.arange(8) > at
    gap = np.linalg.solve(hessian[np.ix_(free, free)], hessian[free, at] * weights[0, at, 0]) if free.any() else np.zeros(0)
    expected = weights[0, :, 0].copy()
    expected[at] = 0
    expected[free] += gap
    assert new[0, :, 0] == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(st.integers(0, 2**31), st.integers(1, 48), st.sampled_from([1, 2, 4]))
def test_masks_hold_what_was_asked(seed: int, keep: int, taps: int) -> None:
    found, weights = problem(seed, outputs=3, groups=2)
    for pattern in (Unstructured(), NofM(1, 2), BlockPattern(1, 2)):
        for weights_, mask in (
            obs_selection(found, weights, taps, pattern, keep),
            admm_selection(found, weights, taps, pattern, keep),
        ):
            assert not weights_[~mask].any()
            assert pattern.allows(mask.reshape(2, 8 // taps, taps, 3))
            if pattern == Unstructured():
                assert mask.sum() == keep
            elif not pattern.fixed:
                assert mask.sum() <= keep


def test_wanda_looks_at_what_weights_read() -> None:
    weights, energy = np.array([[[1.0], [2.0], [3.0]]]), np.array([[16.0, 1.0, 1.0]])
    assert wanda_mask(weights, energy, 1, Unstructured(), 1).ravel().tolist() == [True, False, False]
    assert magnitude_mask(weights, 1, Unstructured(), 1).ravel().tolist() == [False, False, True]
