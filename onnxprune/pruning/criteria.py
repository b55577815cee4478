"""Importance of the positions of a group. A criterion is a function; higher is more important.

A group is judged by all the constants it runs along, producers and consumers alike (Fang et al. 2023, "DepGraph": a
position is worth what all the weights that go with it are worth), and its scores are divided by their mean, so that groups of
unlike weights can be ranked together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.axes.coupling import CONVOLUTIONS
from onnxprune.axes.factors import Positions, labels
from onnxprune.axes.graph_axes import BATCHED_PRODUCTS
from onnxprune.errors import ModelError, OptionError
from onnxprune.options.registries import CRITERIA
from onnxprune.pruning.dequantized import dequantized

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling, CouplingGroup, Member
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["Criterion", "GroupView", "Magnitudes", "Scores", "score_groups"]

Scores = npt.NDArray[np.float64]
"""A number for each position of a group; higher is more important. [size]"""
Reduce = tuple[Callable[..., Any], np.ufunc]
"""An elementwise map with an ``out`` argument, and the ufunc that aggregates its results."""

ABSOLUTE: Reduce = (np.abs, np.add)
SQUARE: Reduce = (np.square, np.add)
MAXIMUM: Reduce = (np.abs, np.maximum)
_MULTIPLYING = BATCHED_PRODUCTS | {"Gemm", "QLinearMatMul", "MatMulInteger", "LSTM", "GRU", "RNN"}
"""Operators other than convolutions that multiply data with their constants."""


class Magnitudes:
    """Aggregates of a model's constants along their axes; each constant is read once per kind of aggregate."""

    def __init__(self, model: Model, coupling: Coupling) -> None:
        self._model, self._axes = model, coupling.axes
        self._wanted: dict[str, set[int]] = {}
        for group in coupling.groups:
            for member in group.members:
                self._wanted.setdefault(member.value, set()).add(member.axis)
        self._quantized = quantized_constants(coupling)
        self._found: dict[tuple[str, int, np.ufunc, object], Scores] = {}
        self._scratch = np.empty(0, np.float32)

    @property
    def real(self) -> Collection[str]:
        """Integer constants that stand for real numbers."""
        return self._quantized

    def array(self, value: str) -> Array:
        """A constant as floats of at least 32 bits."""
        if value in self._quantized:
            return dequantized(self._model.weights, *self._quantized[value])
        array = self._model.weights[value].array()
        return array if array.dtype in {np.dtype(np.float32), np.dtype(np.float64)} else array.astype(np.float32)

    def along(self, value: str, axis: int, reduce: Reduce) -> Scores:
        """The aggregate of a constant for each index of one of its axes."""
        apply, combine = reduce
        key = (value, axis, combine, apply)
        if key not in self._found:
            self._read(value, reduce)
        return self._found[key]

    def _read(self, value: str, reduce: Reduce) -> None:
        apply, combine = reduce
        array = self.array(value)
        if reduce == SQUARE:  # the default criterion's: one pass that writes nothing
            for axis in self._wanted[value]:
                self._found[value, axis, combine, apply] = sum_of_squares(array, axis).astype(np.float64)
            return
        if self._scratch.size < array.size or self._scratch.dtype != array.dtype:
            # Once for the largest: what grows with the weights is paged in again and again.
            largest = max(self._model.weights[name].size for name in self._wanted)
            self._scratch = np.empty(max(largest, array.size), array.dtype)
        mapped = apply(array, out=self._scratch[: array.size].reshape(array.shape))
        for axis in self._wanted[value]:
            before, size = math.prod(array.shape[:axis]), array.shape[axis]
            inner = combine.reduce(mapped.reshape(before, -1), 0) if before > 1 else mapped
            found = combine.reduce(inner.reshape(size, -1), 1)
            self._found[value, axis, combine, apply] = found.astype(np.float64)


def sum_of_squares(array: Array, axis: int) -> Array:
    """For each index of an axis the sum of the squares of its entries."""
    before, size = math.prod(array.shape[:axis]), array.shape[axis]
    flat = array.reshape(before if before > 1 else size, -1)
    sums: Array = np.einsum("ij,ij->i" if before == 1 else "ij,ij->j", flat, flat)
    return sums if before == 1 else sums.reshape(size, -1).sum(1)


def quantized_constants(coupling: Coupling) -> dict[str, tuple[NodeAxes, int]]:
    """For each quantised constant the node that reads it, and the input where it does."""
    return {
        node.view.inputs[position]: (node, position)
        for node in coupling.nodes
        for position in node.rule.quantized
        if node.view.has(position)
    }


def _of_blocks(coupling: Coupling) -> set[str]:
    """Scales and zero points of more than one axis: they weigh in what they belong to."""
    return {
        node.view.inputs[at]
        for node in coupling.nodes
        for pair in node.rule.quantized.values()
        for at in pair
        if at >= 0 and node.view.has(at) and len(node.view.shape(at)) > 1
    }


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as a criterion sees it.

    Attributes:
        group: its members and size.
        matrices: the members that weigh: floating-point constants of at least two axes, or all there are if none has.
        seed: for criteria that draw.
    """

    group: CouplingGroup
    matrices: tuple[Member, ...]
    magnitudes: Magnitudes
    axes: Mapping[str, tuple[Any, ...]]
    seed: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.group.size

    def total(self, members: tuple[Member, ...], reduce: Reduce) -> Scores:
        """The aggregate of all weights that go with each position. [size]"""
        combine = reduce[1]
        result = np.zeros(self.size)
        for member in members:
            along = self.magnitudes.along(member.value, member.axis, reduce)
            if member.alone:
                combine(result, along, out=result)
            else:
                combine.at(result, *self._digits(member, along))
        return result

    def _digits(self, member: Member, along: Scores) -> tuple[Positions, Scores]:
        digits = labels(self.axes[member.value][member.axis], self.group.factor)
        belong = digits >= 0
        return digits[belong], along[belong]

    def vectors(self, member: Member) -> Array:
        """The weights of one member that go with each position. [size, weights per position]"""
        array = np.moveaxis(self.magnitudes.array(member.value), member.axis, 0)
        if not member.alone:
            digits = labels(self.axes[member.value][member.axis], self.group.factor)
            order = np.argsort(digits, kind="stable")
            array = array[order[np.count_nonzero(digits < 0) :]]
        return array.reshape(self.size, -1)


Criterion = Callable[[GroupView], "Scores | None"]
"""One score per position, or ``None`` where the criterion says nothing about the group."""


@CRITERIA.register()
def l1(view: GroupView) -> Scores:
    """Sum of absolute weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""
    return view.total(view.matrices, ABSOLUTE)


@CRITERIA.register()
def l2(view: GroupView) -> Scores:
    """Euclidean norm of the weights."""
    return np.sqrt(view.total(view.matrices, SQUARE))


@CRITERIA.register()
def linf(view: GroupView) -> Scores:
    """Largest absolute weight."""
    return view.total(view.matrices, MAXIMUM)


@CRITERIA.register()
def fpgm(view: GroupView) -> Scores:
    """Sum of distances to the other positions: what lies near the geometric median is redundant (He et al. 2019, FPGM)."""
    squared = np.zeros((view.size, view.size))
    for member in view.matrices:
        rows = view.vectors(member).astype(np.float64)  # nearly equal filters are what this is about
        norms = np.einsum("ij,ij->i", rows, rows)
        squared += norms[:, None] + norms[None, :] - 2 * (rows @ rows.T)
    scores: Scores = np.sqrt(np.maximum(squared, 0)).sum(1)
    return scores


@CRITERIA.register()
def bn_scale(view: GroupView) -> Scores | None:
    """Absolute scale of batch normalisation (Liu et al. 2017, "Network Slimming"); nothing where no BN node is left."""
    scales = tuple(m for m in view.group.members if m.op == "BatchNormalization" and m.position == 1)
    return view.total(scales, ABSOLUTE) if scales else None


@CRITERIA.register()
def random(view: GroupView) -> Scores:
    """Seeded noise: the control that every criterion has to beat."""
    name = np.frombuffer(view.group.id.encode(), np.uint8)
    return np.random.default_rng([view.seed, *name.tolist()]).random(view.size)


def score_groups(model: Model, coupling: Coupling, criterion: str, seed: int = 0) -> dict[str, Scores]:
    """Scores of every group, each divided by the mean of its group. Groups the criterion says nothing about get ``l2``.

    A constant with infinite entries that multiplies nothing is a mask (a table of biases with -inf) and weighs nothing.

    Raises:
        OptionError: the criterion says nothing about any group of this model.
        ModelError: weights that are not finite.
    """
    magnitudes, function = Magnitudes(model, coupling), CRITERIA[criterion].value
    found: dict[str, Scores] = {}
    scales = _of_blocks(coupling)
    silent = 0
    for group in coupling.groups:
        real = magnitudes.real
        floats = [member for member in group.members if model.weights[member.value].is_float or member.value in real]
        matrices = [member for member in floats if len(model.weights[member.value].shape) > 1 and member.value not in scales]
        view = GroupView(group, tuple(matrices or floats), magnitudes, coupling.axes, seed)
        scores = _scores(view, function)
        if scores is None:
            silent += 1
            scores = _scores(view, l2)
        if scores is None or not np.isfinite(scores).all():
            raise ModelError(_not_finite(model, coupling, view))
        mean = scores.mean()
        found[group.id] = scores / mean if mean > 0 else scores
    if silent and silent == len(coupling.groups):
        raise OptionError(
            f"criterion {criterion!r} says nothing about {model.name}: it has no BatchNormalization nodes (exporters fold "
            "them into convolutions); use --criterion l2"
        )
    return found


def _scores(view: GroupView, function: Criterion) -> Scores | None:
    """The scores by all that weighs; without masks, where these make them infinite."""
    with np.errstate(over="ignore", invalid="ignore"):  # weights that are not finite are named by the caller
        scores = function(view)
        if scores is None or np.isfinite(scores).all():
            return scores
        weighing = tuple(member for member in view.matrices if not _is_mask(member, view.magnitudes))
        return function(replace(view, matrices=weighing)) if weighing else scores


def _is_mask(member: Member, magnitudes: Magnitudes) -> bool:
    """Tell whether a constant multiplies nothing and has infinite entries, but none that is no number."""
    if member.op in CONVOLUTIONS | _MULTIPLYING:
        return False
    array = magnitudes.array(member.value)
    return bool(np.isinf(array).any()) and not np.isnan(array).any()


def _not_finite(model: Model, coupling: Coupling, view: GroupView) -> str:
    names = (member.value for member in view.matrices if not np.isfinite(view.magnitudes.array(member.value)).all())
    name = next(names, "")
    if not name:
        return (
            f"group {view.group.id!r} of {model.name} has weights too large to add up: --protect {view.group.id.split(':')[0]!r}"
        )
    reader = next((node.view.name for node in coupling.nodes if name in node.view.inputs), "")
    return (
        f"initializer {name!r} of {model.name}, which node {reader!r} reads, has NaN or infinite weights: "
        f"export the model again, or leave it whole with --protect {name!r}"
    )
