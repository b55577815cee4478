"""Structured optimal brain surgery against what it is a shortcut for: solving the whole problem again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.axes.factors import Positions
from onnxprune.ir.weights import Array
from onnxprune.linear import obs
from onnxprune.linear.obs import OBS_DAMPING, AdditiveLoss, QuadraticLoss, removal


class Reader:
    """A random least squares problem: positions of so many features each, a bias at the end or not."""

    def __init__(self, seed: int, *, affine: bool = True, positions: int = 6, each: int = 2, outputs: int = 3) -> None:
        rng = np.random.default_rng(seed)
        features = positions * each
        x = rng.standard_normal((200, features)) @ rng.standard_normal((features, features)) + rng.standard_normal(features)
        self.x = np.concatenate([x, np.ones((200, 1))], 1) if affine else x
        self.weights = rng.standard_normal((self.x.shape[1], outputs))
        self.gram = self.x.T @ self.x / 200
        self.blocks = rng.permutation(features).reshape(positions, each)
        self.affine, self.size = affine, positions

    def loss(self, share: float = 1.0) -> QuadraticLoss:
        return QuadraticLoss(self.gram, self.weights, self.blocks, affine=self.affine, share=share)

    @property
    def damped(self) -> Array:
        ridge = np.full(len(self.gram), OBS_DAMPING * np.trace(self.gram) / len(self.gram))
        if self.affine:
            ridge[-1] = 0
        return self.gram + np.diag(ridge)

    def solved(self, gone: Positions) -> tuple[Array, float]:
        """The best weights without the features of some positions, from scratch, and the damped error of those."""
        h = self.damped
        left = np.setdiff1d(np.arange(len(h)), self.blocks[gone].reshape(-1))
        best = np.zeros_like(self.weights)
        best[left] = np.linalg.solve(h[np.ix_(left, left)], h[left] @ self.weights)
        gap = best - self.weights
        return best, float(np.vdot(gap, h @ gap)) / self.power

    @property
    def power(self) -> float:
        """The variance of what the reader puts out; the mean square where it has no bias."""
        y = self.x @ self.weights
        return float(np.square(y - (y.mean(0) if self.affine else 0)).sum(1).mean())


@given(st.integers(0, 2**31), st.booleans(), st.integers(1, 3), st.permutations(range(6)))
def test_removing_is_solving_again(seed: int, affine: bool, each: int, order: list[int]) -> None:
    reader = Reader(seed, affine=affine, each=each)
    loss, lost = reader.loss(), 0.0
    for count in range(1, 6):
        lost += loss.remove(np.array(order[count - 1 : count]))
        weights, error = reader.solved(np.array(order[:count]))
        np.testing.assert_allclose(loss.weights, weights, rtol=1e-4, atol=1e-4)
        assert lost == pytest.approx(error, rel=1e-4)


@given(st.integers(0, 2**31), st.booleans(), st.integers(0, 4))
def test_costs_are_what_removing_next_would_cost(seed: int, affine: bool, before: int) -> None:
    reader = Reader(seed, affine=affine)
    loss = reader.loss()
    gone = np.arange(before)
    spent = loss.remove(gone) if before else 0.0
    alive = np.arange(before, 6)[::-1]
    costs = loss.costs(alive)
    expected = [reader.solved(np.append(gone, position))[1] - spent for position in alive]
    np.testing.assert_allclose(costs, expected, rtol=1e-4, atol=1e-7)
    assert (costs > 0).all()


@given(st.integers(0, 2**31), st.booleans(), st.permutations(range(6)))
def test_together_is_one_after_the_other(seed: int, affine: bool, order: list[int]) -> None:
    reader = Reader(seed, affine=affine)
    jointly, singly = reader.loss(), reader.loss()
    gone = np.array(order[:4])
    total = jointly.remove(gone)
    assert total == pytest.approx(sum(singly.remove(gone[at : at + 1]) for at in range(4)), rel=1e-5)
    np.testing.assert_allclose(jointly.weights, singly.weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jointly.costs(np.array(order[4:])), singly.costs(np.array(order[4:])), rtol=1e-4)


@given(st.integers(0, 2**31), st.booleans(), st.integers(1, 3), st.permutations(range(6)))
def test_along_a_known_order_is_one_after_the_other(seed: int, affine: bool, each: int, order: list[int]) -> None:
    reader = Reader(seed, affine=affine, each=each)
    singly, lost = reader.loss(), 0.0
    removals = reader.loss().along(np.array(order))
    assert len(removals.lost) == 7
    assert removals.lost[0] == 0
    assert removals.weights is not None
    for count in range(6):
        assert removals.lost[count] == pytest.approx(lost, rel=1e-4, abs=1e-9)
        np.testing.assert_allclose(removals.weights(count), singly.weights, rtol=1e-4, atol=1e-4)
        lost += singly.remove(np.array(order[count : count + 1]))


def test_features_of_no_position_stay_along_an_order() -> None:
    reader = Reader(7, positions=6, each=1)
    reader.blocks = np.array([[4], [0]])
    removals = reader.loss().along(np.array([1, 0]))
    assert removals.weights is not None
    weights, error = reader.solved(np.array([1]))
    np.testing.assert_allclose(removals.weights(1), weights, rtol=1e-4, atol=1e-4)
    assert removals.lost[1] == pytest.approx(error, rel=1e-4)


def test_sums_that_rounding_left_indefinite_are_damped_more() -> None:
    gram = np.diag([1.0, 1.0, -0.05])
    removals = QuadraticLoss(gram, np.ones((3, 1)), np.arange(3)[:, None], affine=False).along(np.arange(3))
    assert np.isfinite(removals.lost).all()


@pytest.mark.parametrize("together", [1, 5, 10**6])
def test_how_many_are_down_dated_together_does_not_matter(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    readers = [Reader(3, positions=12), Reader(4, positions=12, affine=False)]
    expected = removal(12, [reader.loss() for reader in readers])
    monkeypatch.setattr(obs, "_TOGETHER", together)
    np.testing.assert_allclose(removal(12, [reader.loss() for reader in readers]), expected, rtol=1e-8)


def test_a_copy_costs_next_to_nothing_until_the_other_goes() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((500, 6)), rng.standard_normal((6, 3))
    x[:, 1] = x[:, 0]
    loss = QuadraticLoss(x.T @ x / 500, weights, np.arange(6)[:, None], affine=False)
    before = loss.costs(np.arange(6))
    assert before[:2].max() < 0.02 * before[2:].min()
    loss.remove(np.array([0]))
    np.testing.assert_allclose(loss.weights[1], weights[0] + weights[1], rtol=1e-2)
    assert loss.costs(np.array([1]))[0] > 100 * before[1]


def test_a_constant_feature_moves_into_the_bias() -> None:
    reader = Reader(1, each=1)
    reader.blocks = np.arange(6)[:, None]
    reader.x[:, 2] = 3
    reader.gram = reader.x.T @ reader.x / 200
    loss = reader.loss()
    assert loss.remove(np.array([2])) < 1e-3
    np.testing.assert_allclose(loss.weights[-1], reader.weights[-1] + 3 * reader.weights[2], rtol=1e-2, atol=1e-2)


def test_all_that_can_go_costs_what_the_reader_puts_out() -> None:
    """Costs are shares, up to the damping."""
    reader = Reader(2)
    assert reader.loss().remove(np.arange(6)) == pytest.approx(1, abs=0.02)
    assert reader.loss(share=0.25).remove(np.arange(6)) == pytest.approx(0.25, abs=0.005)


def test_additive() -> None:
    loss = AdditiveLoss(np.array([1.0, 2.0, 4.0]))
    along = loss.along(np.array([2, 0, 1]))
    assert (along.lost.tolist(), along.weights) == ([0, 4, 5, 7], None)
    assert loss.costs(np.array([2, 0])).tolist() == [4, 1]
    assert loss.remove(np.array([0, 2])) == 5


def spent(order: Positions, readers: list[Reader]) -> list[float]:
    """What all readers have lost when so many positions of an order have gone."""
    return [sum(reader.solved(order[:count])[1] for reader in readers) for count in range(1, len(order) + 1)]


@given(st.integers(0, 2**31), st.booleans())
def test_scores_are_the_losses_in_the_order_of_removal(seed: int, affine: bool) -> None:
    readers = [Reader(seed, affine=affine), Reader(seed + 1, affine=affine, each=1)]
    scores = removal(6, [reader.loss() for reader in readers])
    order = np.argsort(scores)
    np.testing.assert_allclose(scores[order], spent(order, readers), rtol=1e-3, atol=1e-7)
    assert all(a < b for a, b in pairwise(scores[order]))


@given(st.integers(0, 2**31))
def test_each_is_the_cheapest_then(seed: int) -> None:
    readers = [Reader(seed), Reader(seed + 1)]
    order = np.argsort(removal(6, [reader.loss() for reader in readers]))
    for count in range(5):
        costs = [sum(r.solved(np.append(order[:count], other))[1] for r in readers) for other in order[count:]]
        assert costs[0] == pytest.approx(min(costs), rel=1e-4)


def test_greedy_beats_random_orders() -> None:
    readers = [Reader(3, positions=12), Reader(4, positions=12)]
    order = np.argsort(removal(12, [reader.loss() for reader in readers]))
    rng = np.random.default_rng(0)
    by_chance = np.mean([spent(rng.permutation(12), readers) for _ in range(50)], 0)
    shares = np.array(spent(order, readers))[:-1] / by_chance[:-1]
    assert shares.max() < 0.9
    assert shares[:6].max() < 0.6


def test_many_positions_go_in_blocks() -> None:
    """The order is that of one by one, but for the last few of a block."""
    reader = Reader(5, positions=200, each=1)
    reader.gram = np.eye(201) + 1e-3 * reader.gram / np.abs(reader.gram).max()
    scores = removal(200, [reader.loss()])
    assert len(set(scores.tolist())) == 200
    assert (scores > 0).all()
    expected = np.square(reader.weights).sum(1)[reader.blocks[:, 0]]
    assert np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(expected)))[0, 1] > 0.99


@pytest.mark.parametrize("size", [2, 5, 300])
def test_equal_costs_are_ordered_all_the_same(size: int) -> None:
    scores = removal(size, [AdditiveLoss(np.zeros(size))])
    assert np.argsort(scores).tolist() == list(range(size))
    assert len(set(scores.tolist())) == size
    assert len(set(removal(size, [AdditiveLoss(np.full(size, 7.0))]).tolist())) == size
