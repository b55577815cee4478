"""Two networks side by side: the input of each reader of the changed one, and its target, the output of the original.

Where the output is added to other activations, the sum is matched, so that errors do not pile up along a residual stream; where
only a rectifier reads that, the part that it cuts off need not be matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.factors import Indices, take
from onnxprune.ir.node import captured, domain_of, is_sum_of_two
from onnxprune.ir.subgraph import needed
from onnxprune.linear.layers import Reader, outer_consumers
from onnxprune.linear.moments import ROWS, rows_wanted
from onnxprune.linear.regression import Regression
from onnxprune.linear.rows import input_rows, output_rows, pick_rows, summable

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.runtime.stages import StagedRun
    from onnxprune.shapes.probes import Shapes

__all__ = ["UNBOUNDED", "NetworkPair", "Repaired", "Task", "Twin", "rectified_to", "tasks_of"]

_FOURTH = 4
"""Every fourth batch judges what was fitted on the others."""
UNBOUNDED = (-np.inf, np.inf)
"""What no rectifier cuts off."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A reader that repair looked at: its error on rows that it was not fitted on, over the variance of its target, with the
    weights it had and with the weights it has now.
    """

    node: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Task:
    """Attributes:
    reader: as it is in the original.
    target: the value of the original that is matched: the reader's output, or a sum that it goes into.
    others: what else goes into that sum.
    stop: the node behind the target.
    bounds: of the rectifier that alone reads the target; infinite where there is none.
    fed: whether what it reads, what its output is added to or what it is matched to differs, and not its weights alone.
    moved: whether it is matched to something behind a bypass.
    """

    reader: Reader
    target: str
    others: tuple[str, ...]
    stop: int
    bounds: tuple[float, float]
    fed: bool
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Twin:
    """A reader in the changed network.

    Attributes:
        index: of the node.
        data: the value that it reads.
        others: what is added to its output.
    """

    index: int
    data: str
    others: tuple[str, ...] = ()


def tasks_of(
    original: Model, readers: Sequence[Reader], shapes: Shapes, constants: Iterable[str], changed: Model | None = None
) -> list[Task]:
    """The readers whose weights, input or target differ from the original's, in order.

    Args:
        original: the model.
        readers: its readers.
        shapes: of its values.
        constants: those that differ in the changed network.
        changed: that network, where it has other nodes: an ``Identity`` in the place of some, which passes on what they read.
    """
    behind = _Behind(original, shapes, changed or original)
    differ = {*constants, *behind.bypassed}
    for node in original.graph.node:
        if not differ.isdisjoint((*node.input, *captured(node))):
            differ.update(node.output)
    tasks = []
    for reader in readers:
        if reader.node.index not in behind.needed:
            continue
        value, others, bounds, moved = behind.target(reader)
        if moved or not differ.isdisjoint((reader.data, reader.weight)):
            fed = moved or not differ.isdisjoint((reader.data, *others))
            tasks.append(Task(reader, value, others, behind.places[value] + 1, bounds, fed, moved))
    return tasks


class _Behind:
    """What lies behind readers in the changed network: the sums that they go into, bypasses, and the rectifiers behind those."""

    def __init__(self, original: Model, shapes: Shapes, changed: Model) -> None:
        nodes = changed.graph.node
        self.bypassed = {
            node.output[0] for node, before in zip(nodes, original.graph.node, strict=True) if node.op_type != before.op_type
        }
        self.places = {name: place for place, node in enumerate(nodes) for name in node.output}
        self._model, self._shapes = changed, shapes.shapes
        self._interface = {output.name for output in changed.graph.output}
        self.needed = needed(nodes, self._interface)
        self._consumers = outer_consumers(changed)

    def target(self, reader: Reader) -> tuple[str, tuple[str, ...], tuple[float, float], bool]:
        """The value that is matched, what else goes into that sum, its bounds, and whether a bypass lies in between.

        What enters a bypass is matched to what came out of it, also through a rectifier in front, whose bounds are then those of
        the match: it can be no less.
        """
        value, others, bounds, moved = reader.output, list[str](), UNBOUNDED, False
        while (following := self._next(value)) is not None:
            node, position = following
            if node.output[0] in self.bypassed:
                value, moved = node.output[0], True
                continue
            limits = rectified_to(self._model, node)
            if limits != UNBOUNDED:
                after = self._next(node.output[0])
                if after is None or after[0].output[0] not in self.bypassed or bounds not in {UNBOUNDED, limits}:
                    break
                value, bounds, moved = after[0].output[0], limits, True
                continue
            if not is_sum_of_two(node) or position < 0 or bounds != UNBOUNDED:
                break
            other = node.input[1 - position]
            broadcast = self._shapes.get(node.output[0]) != self._shapes.get(value)
            if other == value or broadcast or self.places.get(other, len(self.places)) > reader.node.index:
                break
            others.append(other)
            value = node.output[0]
        return value, tuple(others), self._bounds(value) if bounds == UNBOUNDED else bounds, moved

    def _following(self, value: str) -> list[tuple[NodeProto, int]]:
        """The nodes that read a value and are needed; in bodies all of them."""
        return [
            (node, at)
            for node, at in self._consumers.get(value, ())
            if at < 0 or any(self.places[name] in self.needed for name in node.output if name)
        ]

    def _next(self, value: str) -> tuple[NodeProto, int] | None:
        """The one node that reads a value, if there is one and the value is no output; with the position."""
        found = [] if value in self._interface else self._following(value)
        return found[0] if len(found) == 1 else None

    def _bounds(self, value: str) -> tuple[float, float]:
        """The bounds to which everything that reads a value clips it."""
        following = () if value in self._interface else self._following(value)
        found = {rectified_to(self._model, node) for node, _ in following}
        return found.pop() if len(found) == 1 else UNBOUNDED


def rectified_to(model: Model, node: NodeProto) -> tuple[float, float]:
    """The bounds that a node clips its input to; `UNBOUNDED` where it is no rectifier."""
    if node.op_type == "Relu" and not domain_of(node):
        return 0.0, np.inf
    if node.op_type != "Clip" or domain_of(node):
        return UNBOUNDED
    limits = [float(a.f) for name in ("min", "max") for a in node.attribute if a.name == name]
    given = [model.weights.get(name) for name in node.input[1:3]]
    if len(given) == 2 and all(weight is not None for weight in given):
        limits = [float(weight.array().item()) for weight in given if weight is not None]
    return (limits[0], limits[1]) if len(limits) == 2 else UNBOUNDED


class NetworkPair:
    """Both networks, run side by side as far as the next reader needs it."""

    def __init__(
        self,
        original: StagedRun,
        changed: StagedRun,
        tasks: Sequence[Task],
        kept: Callable[[str], Indices] = lambda _: (),
        twins: Mapping[str, Twin] = MappingProxyType({}),
        most: int = ROWS,
    ) -> None:
        """Nothing runs yet.

        Args:
            original: the original, before its first node.
            changed: the changed network, likewise.
            tasks: what will be asked for.
            kept: the positions of a value of the original that the changed network has.
            twins: by the weights of readers their nodes in a changed network that has other nodes and values.
            most: rows that are enough for a reader, unless its features need more.
        """
        self._most = most
        self._original, self._changed, self._kept, self._twins = original, changed, kept, twins
        self._open = Counter(task.target for task in tasks)

    @property
    def changed(self) -> Model:
        """The changed network, whose readers are given new weights on the way."""
        return self._changed.model

    def rows(self, task: Task, reader: Reader, rng: np.random.Generator) -> tuple[Regression, Regression, Regression]:
        """The regression of a reader, once both networks have run up to it.

        All rows; those of three of four batches, or rows where there are fewer batches; and those of the fourth.
        """
        twin = self._twins.get(reader.weight) or Twin(reader.node.index, reader.data, task.others)
        self._original.advance(task.stop)
        self._changed.advance(twin.index)
        found = self._regressions(task, reader, twin, rng)
        self._open[task.target] -= 1
        if not self._open[task.target]:
            self._original.release(task.target)
        return found

    def _regressions(
        self, task: Task, reader: Reader, twin: Twin, rng: np.random.Generator
    ) -> tuple[Regression, Regression, Regression]:
        batches = self._original.batches
        kernel = self._original.model.weights[reader.weight].shape
        wanted = rows_wanted(reader.features, reader.groups * (reader.features + 2 * reader.roles.size("output")), self._most)
        designs, targets, offsets = [], [], []
        for batch in range(batches):
            x = self._changed.value(twin.data, batch)
            y = take(self._original.value(task.target, batch), self._kept(task.target))
            picked = pick_rows(reader, x.shape, kernel, max(1, wanted // batches), rng)
            designs.append(input_rows(reader, x, picked).astype(np.float32))
            targets.append(output_rows(reader, y, picked).astype(np.float32))
            if twin.others:
                added = sum((self._changed.value(other, batch) for other in twin.others), np.zeros((), y.dtype))
                offsets.append(output_rows(reader, np.broadcast_to(added, y.shape), picked).astype(np.float32))
        judging = [batch % _FOURTH == _FOURTH - 1 for batch in range(batches)]
        fitted = sum(rows.shape[1] for rows, judges in zip(designs, judging, strict=True) if not judges)
        x, y = _joined(designs, judging, ones=reader.affine), _joined(targets, judging)
        offset = _joined(offsets, judging) if offsets else None
        return _parts(Regression(x, y, offset, *task.bounds, reader.affine), fitted)


def _joined(parts: list[Array], last: Sequence[bool], *, ones: bool = False) -> Array:
    """The rows of all batches, those of some ``last``; with a last feature that is 1, where there are to be ``ones``.

    What is joined leaves the list, so that no row is held twice. [groups, rows, features]
    """
    groups, _, features = parts[0].shape
    joined = np.empty((groups, sum(part.shape[1] for part in parts), features + ones), np.float32)
    joined[:, :, features:] = 1
    stop = 0
    for batch in sorted(range(len(parts)), key=lambda batch: last[batch]):
        part, parts[batch] = parts[batch], np.empty(0, np.float32)
        start, stop = stop, stop + part.shape[1]
        joined[:, start:stop, :features] = part
    return joined


def _parts(whole: Regression, fitted: int) -> tuple[Regression, Regression, Regression]:
    """All rows, those that are fitted, and those that judge; without the rows that have no sum.

    Args:
        whole: the rows that are fitted, and then those that judge.
        fitted: how many are fitted; where that is all of them, each fourth row judges.
    """
    arrays = [array for array in (whole.x, whole.y, whole.offset) if array is not None]
    places = np.arange(whole.y.shape[1])
    if fitted == len(places):
        judges = places % _FOURTH == _FOURTH - 1
        places, fitted = np.concatenate([places[~judges], places[judges]]), int(np.count_nonzero(~judges))
    sound = summable(*arrays)[places]
    if not sound.all() or (np.diff(places) != 1).any():
        whole, fitted = whole.part(places[sound]), int(np.count_nonzero(sound[:fitted]))
    if fitted in {0, whole.y.shape[1]}:
        return whole, whole, whole
    return whole, whole.part(slice(0, fitted)), whole.part(slice(fitted, None))
