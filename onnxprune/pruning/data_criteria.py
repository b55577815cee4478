"""Criteria that need calibration data: the readers of a group as least squares problems, and scores that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import labels, leaves
from onnxprune.linear.layers import Reader, matrix_of
from onnxprune.linear.obs import AdditiveLoss, QuadraticLoss, RemovalLoss, removal
from onnxprune.linear.rows import positions_read
from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import SAMPLES
from onnxprune.pruning.criteria import Scores, score_groups

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup
    from onnxprune.axes.factors import Positions
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.linear.moments import FeatureMoments, Statistics

__all__ = ["Part", "Problem", "calibrated"]


@dataclass(frozen=True, slots=True)
class Part:
    """One reader of a group, or one of the groups that the reader keeps apart.

    Attributes:
        reader: the reader.
        at: which of its groups.
        moments: of its features.
        weights: [f, o], the bias as last feature where the reader is affine.
        positions: for each feature the position of the group it belongs to, -1 for none. [f]
    """

    reader: Reader
    at: int
    moments: FeatureMoments
    weights: Array
    positions: Positions

    def spread(self, *, centred: bool) -> Scores:
        """Mean square of each feature, or its variance. [f]"""
        squares = self.moments.squares
        if centred and self.reader.affine:
            squares = np.maximum(squares - np.square(self.moments.means), 0)
        found: Scores = squares.astype(np.float64)
        return found

    def total(self, values: Scores, size: int) -> Scores:
        """Sums of a value of each feature over the features of each position. [size]"""
        belong = self.positions >= 0
        return np.bincount(self.positions[belong], values[belong], size).astype(np.float64)

    def loss(self, size: int, share: float) -> RemovalLoss:
        """The loss of this reader when positions are removed, as a share of the power of its output."""
        counts = np.bincount(self.positions[self.positions >= 0], minlength=size)
        if self.moments.full and counts.min() == counts.max() > 0:
            order = np.argsort(self.positions, kind="stable")
            blocks = order[np.count_nonzero(self.positions < 0) :].reshape(size, -1)
            return QuadraticLoss(self.moments.array, self.weights, blocks, affine=self.reader.affine, share=share)
        energies = self.spread(centred=True) * np.square(self.weights).sum(1)
        return AdditiveLoss(share * self.total(energies, size) / max(energies.sum(), 1e-30))


@dataclass(frozen=True, slots=True)
class Problem:
    """Attributes:
    size: number of positions of the group.
    parts: the readers that sum over the group.
    meetings: for each product of activations that sums over it, the share of each position. [size]
    """

    size: int
    parts: tuple[Part, ...]
    meetings: tuple[Scores, ...]

    @classmethod
    def of(cls, model: Model, coupling: Coupling, group: CouplingGroup, statistics: Statistics) -> Problem:
        """The problem of one group, from statistics."""
        parts = tuple(_parts(model, coupling, group, statistics))
        return cls(group.size, parts, tuple(_meetings(coupling, group, statistics)))

    def losses(self) -> list[RemovalLoss]:
        """One for each part, then one for each meeting. Expensive: Gram matrices are inverted here."""
        quadratic: list[RemovalLoss] = [part.loss(self.size, 1 / part.reader.groups) for part in self.parts]
        return [*quadratic, *(AdditiveLoss(shares) for shares in self.meetings)]


def _parts(model: Model, coupling: Coupling, group: CouplingGroup, statistics: Statistics) -> Iterator[Part]:
    for reader in statistics.readers:
        summed = [factor for letter, factor in reader.node.letters.items() if reader.roles.role(letter) == "feature"]
        if group.factor not in {leaf for factor in summed for leaf in leaves(factor)}:
            continue
        positions = positions_read(reader, coupling, group.factor)
        if positions is None:
            continue
        if reader.affine:
            positions = np.concatenate([positions, np.full((len(positions), 1), -1)], 1)
        weights = matrix_of(reader, model)
        moments = statistics.moments[reader.weight]
        for at in range(reader.groups):
            yield Part(reader, at, moments.of_group(at), weights[at], positions[at])


def _meetings(coupling: Coupling, group: CouplingGroup, statistics: Statistics) -> Iterator[Scores]:
    for meeting in statistics.meetings:
        shares = np.ones(1)
        for position, axis in meeting.node.equation.carriers[meeting.letter]:
            value = meeting.node.view.inputs[position]
            shares = shares * statistics.energies[value, axis]
            digits = labels(coupling.axes[value][axis], group.factor)
        belong = digits >= 0
        if belong.any():
            yield np.bincount(digits[belong], shares[belong], group.size) / max(float(shares.sum()), 1e-30)


@CRITERIA.register(needs=(SAMPLES,))
def obs(problem: Problem) -> Scores:
    """The loss after the best repair, position by position (structured optimal brain surgery; `onnxprune.linear.obs`)."""
    return removal(problem.size, problem.losses())


@CRITERIA.register(needs=(SAMPLES,))
def wanda(problem: Problem) -> Scores:
    """Weights times the root mean square of what they read, squared and summed (Sun et al. 2024, "Wanda", for structures)."""
    return _weighted(problem, centred=False)


@CRITERIA.register(needs=(SAMPLES,))
def flap(problem: Problem) -> Scores:
    """Weights times the fluctuation of what they read (An et al. 2024, "FLAP"); the mean moves into the bias."""
    return _weighted(problem, centred=True)


@CRITERIA.register(needs=(SAMPLES,))
def variance(problem: Problem) -> Scores:
    """Variance of a position over the samples, whatever its readers weigh."""
    found = [part.total(part.spread(centred=True), problem.size) / len(problem.parts) for part in problem.parts]
    scores: Scores = np.sum([*found, *problem.meetings], 0)
    return scores


def _weighted(problem: Problem, *, centred: bool) -> Scores:
    found = []
    for part in problem.parts:
        energies = part.spread(centred=centred) * np.square(part.weights).sum(1)
        found.append(part.total(energies, problem.size) / max(energies.sum(), 1e-30))
    scores: Scores = np.sum([*found, *problem.meetings], 0)
    return scores


def calibrated(model: Model, coupling: Coupling, criterion: str, statistics: Statistics) -> dict[str, Scores]:
    """Scores of every group by a criterion that needs data, each divided by the mean of its group.

    Groups that nothing sums over (a recurrent state) are scored by the norm of their weights.
    """
    silent = score_groups(model, coupling, "l2")
    found = {}
    for group in coupling.groups:
        problem = Problem.of(model, coupling, group, statistics)
        if not problem.parts and not problem.meetings:
            found[group.id] = silent[group.id]
            continue
        scores = CRITERIA[criterion].value(problem)
        found[group.id] = scores / max(float(scores.mean()), 1e-300)
    return found
