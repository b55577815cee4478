"""Structured optimal brain surgery: what a group's readers lose with each position after the best repair, and that repair.

For a reader with weights ``W`` [f, o] and a damped Gram matrix ``H`` of its features, removing a block *S* of features and
re-solving the others costs ``tr(W_S' (H^-1_SS)^-1 W_S)`` and changes ``W`` by ``-H^-1_.S (H^-1_SS)^-1 W_S``; ``H^-1`` is then
down-dated, so that the next block sees what the first one left (Hassibi and Stork 1993; blocks as in Kurtic et al. 2023,
"ZipLM"). A position of a group is a block in each of its readers; their costs add, each relative to the power
of its reader's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.ir.weights import Array, Floats

__all__ = ["AdditiveLoss", "QuadraticLoss", "RemovalLoss", "removal"]

OBS_DAMPING = 1e-3
"""Added to the diagonal of a Gram matrix, relative to its mean, so that it can be inverted where features depend on each other.
SparseGPT adds 1e-2; the matrix is inverted in double precision here, which needs less."""
_DEAD = 0.2
"""Share of an inverse that is of no use any more from which on it is made smaller."""
_ROWS = 256
"""Rows that are down-dated at a time."""
_CHUNK = 64
"""At most this part of the positions that are left goes at once, before the others are priced again."""


class RemovalLoss(Protocol):
    """The loss of one reader when positions are removed."""

    def costs(self, alive: Positions) -> Floats:
        """The cost of each of some positions, if it goes next. [len(alive)]"""

    def remove(self, gone: Positions) -> float:
        """Remove positions together; returns the cost."""


class AdditiveLoss:
    """Costs that do not depend on what else is gone."""

    def __init__(self, costs: Floats) -> None:
        self._costs = costs

    def costs(self, alive: Positions) -> Floats:
        return self._costs[alive]

    def remove(self, gone: Positions) -> float:
        return float(self._costs[gone].sum())


class QuadraticLoss:
    """The least squares loss of one reader, or of one of the groups that it keeps apart.

    Attributes:
        weights: those of the reader after all removals so far. [f, o]
    """

    def __init__(self, gram: Array, weights: Array, blocks: Positions, *, affine: bool, share: float = 1.0) -> None:
        """Set up.

        Args:
            gram: mean outer product of the features. [f, f]
            weights: [f, o]; the last feature is the bias where the reader is affine.
            blocks: the features of each position. [positions, features per position]
            affine: whether the last feature is a constant 1.
            share: what the loss is multiplied by.
        """
        h = gram.astype(np.float64)
        self.weights = weights.astype(np.float64)
        # the power of the output, tr(W' H W), without that of its mean, |m W|^2 / h_11, where m is the row of the constant 1
        power = np.vdot(self.weights, h @ self.weights)
        if affine:
            power -= np.square(h[-1] @ self.weights).sum() / max(h[-1, -1], 1e-30)
        self._share = share / max(float(power), 1e-30)
        at = np.arange(len(h))
        damping = np.full(len(h), OBS_DAMPING * h.trace() / len(h) + 1e-12)
        if affine:
            damping[-1] = 1e-9
        h[at, at] += damping
        self._inverse = np.linalg.inv(h)
        self._blocks = blocks
        self._left, self._place = at, at.copy()  # the features that the inverse holds, and where it holds each
        self._dead = 0

    def costs(self, alive: Positions) -> Floats:
        blocks = self._blocks[alive]
        places = self._place[blocks]
        inner = self._inverse[places[:, :, None], places[:, None, :]]
        weights = self.weights[blocks]
        # tr(W_S' (H^-1_SS)^-1 W_S) for each block S
        found: Floats = np.einsum("pbo,pbo->p", weights, np.linalg.solve(inner, weights)) * self._share
        return found

    def remove(self, gone: Positions) -> float:
        features = self._blocks[gone].reshape(-1)
        places = self._place[features]
        column = self._inverse[:, places]
        # (H^-1_SS)^-1 times W_S and times the rows H^-1_S. at once
        step = np.linalg.solve(column[places], np.concatenate([self.weights[features], column.T], 1))
        outputs = self.weights.shape[1]
        cost = float(np.vdot(self.weights[features], step[:, :outputs])) * self._share
        self.weights[self._left] -= column @ step[:, :outputs]  # W - H^-1_.S (H^-1_SS)^-1 W_S
        for at in range(0, len(column), _ROWS):  # a product of the whole size would be written to fresh memory each time
            self._inverse[at : at + _ROWS] -= column[at : at + _ROWS] @ step[:, outputs:]  # H^-1 - H^-1_.S (H^-1_SS)^-1 H^-1_S.
        self.weights[features] = 0
        self._inverse[places] = 0
        self._inverse[:, places] = 0
        self._inverse[places, places] = 1
        self._place[features] = -1
        self._dead += len(features)
        if self._dead > len(self._left) * _DEAD:
            self._compact()
        return cost

    def _compact(self) -> None:
        """Give up the rows and columns of features that are gone: what follows gets cheaper."""
        held = np.flatnonzero(self._place[self._left] >= 0)
        self._left = self._left[held]
        self._inverse = self._inverse[np.ix_(held, held)]
        self._place[self._left] = np.arange(len(held))
        self._dead = 0


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
