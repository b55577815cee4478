"""Repair: linear readers re-solved so that the pruned network puts out what the original did, on calibration samples.

Each reader of the pruned network, in topological order, gets the weights that map *its* input (what the pruned and so far
repaired network feeds it) to the *original's* output, by affine ridge regression towards the weights it has. Where its output
is added to other activations, the sum is what is matched, so that errors do not pile up along a residual stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from onnxprune.axes import Indices, Keeper, take
from onnxprune.model import Model
from onnxprune.moments import Regression, with_ones
from onnxprune.node import captured
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.readers import Reader, install, linear_readers, matrix_of, outer_consumers
from onnxprune.refit import refit
from onnxprune.report import Repaired
from onnxprune.staged import Staged
from onnxprune.statistics import rows_wanted

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.shapes import Shapes

__all__ = ["Repair"]

_FOURTH = 4


@dataclass(frozen=True)
class Repair(Pass):
    """Re-solve every reader whose input has changed. Runs on a pruned graph; the facts are those of the original."""

    name: ClassVar[str] = "repair"
    keeps: ClassVar[frozenset[str]] = frozenset({"shapes", "coupling", "plan"})
    seed: int = 0
    """Of the rows that are drawn where there are many."""

    def run(self, model: Model, facts: Facts) -> Model:
        original = need(facts.original, "original")
        coupling, plan = need(facts.coupling, "coupling"), need(facts.plan, "plan")
        keep = plan.positions(coupling)
        kept = Keeper(keep)
        counts = {factor: len(positions) for factor, positions in keep.items()}
        tasks = _tasks(original, model, linear_readers(original, coupling), need(facts.shapes, "shapes"))
        repaired = model.copy()
        feeds = need(facts.calibration, "calibration").every
        done = []
        with Staged(original, feeds, keep={task.target for task in tasks}) as large, Staged(repaired, feeds) as small:
            work = _Work(large, small, tasks, lambda value: kept(coupling.axes.get(value, ())))
            for count, task in enumerate(tasks):
                facts.tell(f"repairing ({count + 1} of {len(tasks)})")
                rng = np.random.default_rng([self.seed, task.reader.node.index])
                done.append(work.solve(task, task.reader.cut(counts), rng))
        facts.repairs = done
        return repaired


@dataclass(frozen=True, slots=True)
class _Task:
    """Attributes:
    reader: as it is in the original.
    target: the value of the original that is matched: the reader's output, or a sum that it goes into.
    others: what else goes into that sum.
    stop: the node behind the target.
    bounds: of the rectifier that alone reads the target; infinite where there is none.
    """

    reader: Reader
    target: str
    others: tuple[str, ...]
    stop: int
    bounds: tuple[float, float]


def _tasks(original: Model, pruned: Model, readers: Sequence[Reader], shapes: Shapes) -> list[_Task]:
    """The readers whose input differs from the original's, in order."""
    consumers = outer_consumers(original)
    places = {name: place for place, node in enumerate(original.graph.node) for name in node.output}
    interface = {output.name for output in original.graph.output}
    changed = {name for name, weight in original.weights.items() if pruned.weights[name].shape != weight.shape}
    for node in original.graph.node:
        if not changed.isdisjoint((*node.input, *captured(node))):
            changed.update(node.output)
    tasks = []
    for reader in readers:
        if reader.data not in changed:
            continue
        value, others = reader.output, []
        while value not in interface and len(consumers.get(value, ())) == 1:
            node, position = consumers[value][0]
            if node.op_type != "Add" or position < 0:
                break
            other = node.input[1] if node.input[0] == value else node.input[0]
            broadcast = shapes.shapes.get(node.output[0]) != shapes.shapes.get(value)
            if other == value or broadcast or places.get(other, len(original.graph.node)) > reader.node.index:
                break
            others.append(other)
            value = node.output[0]
        bounds = (-np.inf, np.inf) if value in interface else _bounds(original, consumers.get(value, ()))
        tasks.append(_Task(reader, value, tuple(others), places[value] + 1, bounds))
    return tasks


def _bounds(model: Model, readers: Sequence[tuple[NodeProto, int]]) -> tuple[float, float]:
    """What a value is clipped to by everything that reads it."""
    found = {_clipped(model, node) for node, _ in readers}
    return found.pop() if len(found) == 1 else (-np.inf, np.inf)


def _clipped(model: Model, node: NodeProto) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return -np.inf, np.inf
    limits = [float(a.f) for name in ("min", "max") for a in node.attribute if a.name == name]
    given = [model.weights.get(name) for name in node.input[1:3]]
    if len(given) == 2 and all(weight is not None for weight in given):
        limits = [float(weight.array().item()) for weight in given if weight is not None]
    return (limits[0], limits[1]) if len(limits) == 2 else (-np.inf, np.inf)


class _Work:
    """Both networks, run side by side as far as the next reader needs it."""

    def __init__(self, original: Staged, pruned: Staged, tasks: Sequence[_Task], kept: Callable[[str], Indices]) -> None:
        self._original, self._pruned, self._kept = original, pruned, kept
        self._open = Counter(task.target for task in tasks)

    def solve(self, task: _Task, reader: Reader, rng: np.random.Generator) -> Repaired:
        """Give one reader of the pruned network its new weights."""
        self._original.advance(task.stop)
        self._pruned.advance(reader.node.index)
        start = matrix_of(reader, self._pruned.model)
        found = refit(*self._regressions(task, reader, rng), start)
        if found.weights is not None:
            install(self._pruned.model, reader, found.weights)
        self._open[task.target] -= 1
        if not self._open[task.target]:
            self._original.release(task.target)
        return Repaired(reader.name, found.before, found.after)

    def _regressions(self, task: _Task, reader: Reader, rng: np.random.Generator) -> tuple[Regression, Regression, Regression]:
        """All rows; those of three of four batches, or rows where there are fewer batches; and those of the fourth."""
        batches = self._original.batches
        kernel = self._pruned.model.weights[reader.weight].shape
        designs, targets, offsets, judging = [], [], [], []
        for batch in range(batches):
            x = self._pruned.value(reader.data, batch)
            y = take(self._original.value(task.target, batch), self._kept(task.target))
            picked = reader.pick(x.shape, kernel, max(1, rows_wanted(reader.features) // batches), rng)
            rows = reader.design(x, picked).astype(np.float32)
            designs.append(with_ones(rows) if reader.affine else rows)
            targets.append(reader.targets(y, picked).astype(np.float32))
            if task.others:
                added = sum((self._pruned.value(other, batch) for other in task.others), np.zeros((), y.dtype))
                offsets.append(reader.targets(np.broadcast_to(added, y.shape), picked).astype(np.float32))
            judging.append(np.full(rows.shape[1], batch % _FOURTH == _FOURTH - 1))
        offset = np.concatenate(offsets, 1) if offsets else None
        whole = Regression(np.concatenate(designs, 1), np.concatenate(targets, 1), offset, *task.bounds, reader.affine)
        judge = np.concatenate(judging)
        judge[_FOURTH - 1 :: _FOURTH] |= not judge.any()
        whole, judge = _finite(whole, judge)
        if not judge.any() or judge.all():
            return whole, whole, whole
        return whole, whole.part(np.flatnonzero(~judge)), whole.part(np.flatnonzero(judge))


def _finite(whole: Regression, judge: npt.NDArray[np.bool_]) -> tuple[Regression, npt.NDArray[np.bool_]]:
    """Without the rows in which something is infinite, or not a number."""
    arrays = [array for array in (whole.x, whole.y, whole.offset) if array is not None]
    sound = np.all([np.isfinite(array).all((0, 2)) for array in arrays], 0)
    return (whole, judge) if sound.all() else (whole.part(np.flatnonzero(sound)), judge[sound])
