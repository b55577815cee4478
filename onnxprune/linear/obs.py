"""Structured optimal brain surgery: what a group's readers lose with each position after the best repair, and that repair.

For a reader with weights ``W`` [f, o] and a damped Gram matrix ``H`` of its features, removing a block *S* of features and
re-solving the others costs ``tr(W_S' (H^-1_SS)^-1 W_S)`` and changes ``W`` by ``-H^-1_.S (H^-1_SS)^-1 W_S``; ``H^-1`` is then
down-dated, so that the next block sees what the first one left (Hassibi and Stork 1993; blocks as in Kurtic et al. 2023,
"ZipLM"). A position of a group is a block in each of its readers; their costs add, each relative to the power
of its reader's output.

Where the order of removal is known, one Cholesky factor has all of this: with ``H = L L'`` over features of which the first to go
is the last, the rows of ``L'W`` that belong to what has gone are the loss, and ``L'^-1`` of the others the new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from onnxprune.linear.definite import Factors

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.ir.weights import Array, Floats

__all__ = ["AdditiveLoss", "QuadraticLoss", "RemovalLoss", "Removals", "removal"]

OBS_DAMPING = 1e-3
"""Added to the diagonal of a Gram matrix, relative to its mean, so that it can be inverted where features depend on each other.
SparseGPT adds 1e-2; the matrix is inverted in double precision here, which needs less."""
_STRONGER = 10.0
"""What the damping is multiplied by as long as rounding of the sums leaves the matrix indefinite all the same, up to 1."""
_DEAD = 0.2
"""Share of an inverse that is of no use any more from which on it is made smaller."""
_ROWS = 256
"""Rows that are down-dated at a time,"""
_TOGETHER = 128
"""for so many features that have gone, at least: of fewer, reading and writing the inverse would take most of the time."""
_CHUNK = 64
"""At most this part of the positions that are left goes at once, before the others are priced again."""


class RemovalLoss(Protocol):
    """The loss of one reader when positions are removed."""

    def costs(self, alive: Positions) -> Floats:
        """The cost of each of some positions, if it goes next. [len(alive)]"""

    def remove(self, gone: Positions) -> float:
        """Remove positions together; returns the cost."""

    def along(self, order: Positions) -> Removals:
        """What is lost when nothing has gone yet and all positions go in an order."""


@dataclass(frozen=True, slots=True)
class Removals:
    """What a reader loses as positions go in an order that is known.

    Attributes:
        lost: when so many have gone. [positions + 1]
        weights: of the reader when so many have gone; ``None`` where it keeps those that it has. -> float64 [f, o]
    """

    lost: Floats
    weights: Callable[[int], Array] | None = None


class AdditiveLoss:
    """Costs that do not depend on what else is gone."""

    def __init__(self, costs: Floats) -> None:
        self._costs = costs

    def costs(self, alive: Positions) -> Floats:
        return self._costs[alive]

    def remove(self, gone: Positions) -> float:
        return float(self._costs[gone].sum())

    def along(self, order: Positions) -> Removals:
        return Removals(np.concatenate([[0.0], np.cumsum(self._costs[order])]))


class QuadraticLoss:
    """The least squares loss of one reader, or of one of the groups that it keeps apart."""

    def __init__(self, gram: Array, weights: Array, blocks: Positions, *, affine: bool, share: float = 1.0) -> None:
        """Set up.

        Args:
            gram: mean outer product of the features. [f, f]
            weights: [f, o]; the last feature is the bias where the reader is affine.
            blocks: the features of each position. [positions, features per position]
            affine: whether the last feature is a constant 1.
            share: what the loss is multiplied by.
        """
        self._weights = weights.astype(np.float64)  # of the features that the inverse holds
        self._gram, self._blocks, self._affine = gram, blocks, affine
        # the power of the output, tr(W' H W), without that of its mean, |m W|^2 / h_11, where m is the row of the constant 1
        power = np.vdot(self._weights, gram @ self._weights)
        if affine:
            power -= np.square(gram[-1] @ self._weights).sum() / max(gram[-1, -1], 1e-30)
        self._share = share / max(float(power), 1e-30)
        self._left = np.arange(len(gram))  # the features that the inverse holds,
        self._place = self._left.copy()  # where it holds each,
        self._gone = np.zeros(len(gram), bool)  # which places are those of features that have gone,
        self._across = self._steps = np.zeros((0, len(gram)))  # and what is to be taken off the inverse: the product of both

    @cached_property
    def _inverse(self) -> Array:
        found: Array = self._factors(self._left).inverse()[0]
        return found

    def _factors(self, order: Positions, damping: float = OBS_DAMPING) -> Factors:
        """The factors of the damped Gram matrix, its features in an order."""
        h = self._gram.astype(np.float64)
        ridge = np.full(len(h), damping * h.trace() / len(h) + 1e-12)
        if self._affine:
            ridge[-1] = 1e-9
        h[order, order] += ridge[order]
        return Factors(h[np.ix_(order, order)][None])

    @property
    def weights(self) -> Array:
        """Those of the reader after all removals so far. [f, o]"""
        found = np.zeros((len(self._gram), self._weights.shape[1]))
        found[self._left] = self._weights
        return found

    def costs(self, alive: Positions) -> Floats:
        places = self._place[self._blocks[alive]]
        inner = self._inverse[places[:, :, None], places[:, None, :]]
        inner -= self._across[:, places].transpose(1, 2, 0) @ self._steps[:, places].transpose(1, 0, 2)
        weights = self._weights[places]
        # tr(W_S' (H^-1_SS)^-1 W_S) for each block S, as tr((H^-1_SS)^-1 W_S W_S'): outputs are many, features of a block few
        found: Floats = np.einsum("pbb->p", np.linalg.solve(inner, weights @ weights.transpose(0, 2, 1))) * self._share
        return found

    def remove(self, gone: Positions) -> float:
        places = self._place[self._blocks[gone].reshape(-1)]
        rows = self._inverse[places]
        rows -= self._steps[:, places].T @ self._across
        rows[:, self._gone] = 0  # but for rounding they are
        # (H^-1_SS)^-1 times W_S and times the rows H^-1_S. at once
        outputs, weights = self._weights.shape[1], self._weights[places]
        step = np.linalg.solve(rows[:, places], np.concatenate([weights, rows], 1))
        cost = float(np.vdot(weights, step[:, :outputs])) * self._share
        self._weights -= rows.T @ step[:, :outputs]  # W - H^-1_.S (H^-1_SS)^-1 W_S
        self._weights[places] = 0
        # H^-1 - H^-1_.S (H^-1_SS)^-1 H^-1_S.
        self._across, self._steps = np.concatenate([self._across, rows]), np.concatenate([self._steps, step[:, outputs:]])
        self._gone[places] = True
        if len(self._across) >= _TOGETHER:
            self._downdate()
        return cost

    def _downdate(self) -> None:
        """Work into the inverse what has gone; give up rows and columns of that: what follows gets cheaper."""
        for at in range(0, len(self._left), _ROWS):  # a product of the whole size would be written to fresh memory each time
            self._inverse[at : at + _ROWS] -= self._across[:, at : at + _ROWS].T @ self._steps
        if np.count_nonzero(self._gone) > len(self._left) * _DEAD:
            held = np.flatnonzero(~self._gone)
            self._left, self._weights = self._left[held], self._weights[held]
            self._inverse = self._inverse[np.ix_(held, held)]
            self._place[self._left] = np.arange(len(held))
            self._gone = np.zeros(len(held), bool)
        self._across = self._steps = np.zeros((0, len(self._left)))

    def along(self, order: Positions) -> Removals:
        """As described for the protocol, by one Cholesky factor."""
        kept = np.setdiff1d(np.arange(len(self._gram)), self._blocks)  # the bias, and what no position has
        features = np.concatenate([kept, self._blocks[order[::-1]].reshape(-1)])
        factors, damping = self._factors(features), OBS_DAMPING
        while not factors.definite and damping < 1:
            damping *= _STRONGER
            factors = self._factors(features, damping)
        turned = np.tril(factors.lower[0]).T @ self._weights[features]
        each = np.square(turned[len(kept) :]).sum(1).reshape(len(order), -1).sum(1)[::-1] * self._share
        size = self._blocks.shape[1]

        def weights(gone: int) -> Array:
            found, count = np.zeros_like(self._weights), len(features) - gone * size
            found[features[:count]] = factors.back(turned[None, :count])[0]
            return found

        return Removals(np.concatenate([[0.0], np.cumsum(each)]), weights)


def removal(size: int, losses: Sequence[RemovalLoss]) -> Floats:
    """The loss of all readers together when each position goes; the next to go is always the one that costs least. [size]

    The greedy order is the order of these numbers.
    """
    alive = np.arange(size)
    scores = np.zeros(size)
    total = 0.0
    while len(alive) > 1:
        costs = np.sum([loss.costs(alive) for loss in losses], 0)
        cheapest = np.argsort(costs, kind="stable")[: max(1, len(alive) // _CHUNK)]
        gone = alive[cheapest]
        scores[gone] = total + np.cumsum(np.maximum(costs[cheapest], 0)) + 1e-15 * np.arange(1, len(gone) + 1)
        total = max(total + sum(loss.remove(gone) for loss in losses), float(scores[gone].max()))
        alive = np.delete(alive, cheapest)
    scores[alive] = total + sum(float(loss.costs(alive).sum()) for loss in losses) + 1e-12
    return scores
