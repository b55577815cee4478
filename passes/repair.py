"""Repair: linear readers re-solved so that the pruned network puts out what the original did, on calibration samples.

Each reader of the pruned network, in topological order, gets the weights that map *its* input (what the pruned and so far
repaired network feeds it) to the *original's* output, by affine ridge regression towards the weights it has. Where its output
is added to other activations, the sum is what is matched, so that errors do not pile up along a residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxprune.axes import Keeper
from onnxprune.model import Model
from onnxprune.moments import Regression, Solver
from onnxprune.pairs import Pair, tasks_of
from onnxprune.passes.base import Facts, Pass, need
from onnxprune.readers import install, linear_readers, matrix_of
from onnxprune.report import Repaired
from onnxprune.staged import Staged

if TYPE_CHECKING:
    from onnxprune.weights import Array

__all__ = ["Repair"]

DAMPING = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that are tried, relative to the mean diagonal; rows that the fit did not see decide."""
ROUNDS = 3
"""Steps towards the least error behind a rectifier."""


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
        changed = [name for name, weight in original.weights.items() if model.weights[name].shape != weight.shape]
        tasks = tasks_of(original, linear_readers(original, coupling), need(facts.shapes, "shapes"), changed)
        repaired = model.copy()
        feeds = need(facts.calibration, "calibration").every
        done = []
        with Staged(original, feeds, keep={task.target for task in tasks}) as large, Staged(repaired, feeds) as small:
            pair = Pair(large, small, tasks, lambda value: kept(coupling.axes.get(value, ())))
            for count, task in enumerate(tasks):
                facts.tell(f"repairing ({count + 1} of {len(tasks)})")
                rng = np.random.default_rng([self.seed, task.reader.node.index])
                reader = task.reader.cut(counts)
                start = matrix_of(reader, repaired)
                solution, before, after = _best(*pair.rows(task, reader, rng), start)
                if solution is not None:
                    install(repaired, reader, solution)
                done.append(Repaired(reader.name, before, after))
        facts.repairs = done
        return repaired


def _best(whole: Regression, fit: Regression, judge: Regression, start: Array) -> tuple[Array | None, float, float]:
    """The solution whose kind does best on rows that it was not fitted on, ``None`` where the present weights do; and the errors
    of both there, over the variance of the target.
    """
    if not judge.y.size:
        return None, 0.0, 0.0
    solvers = {damping: fit.solver(damping) for damping in DAMPING}
    linear = {damping: solver.solve(start, start) for damping, solver in solvers.items()}
    errors = {damping: judge.error(solution) for damping, solution in linear.items()}
    damping = min(errors, key=lambda d: errors[d])
    rounds = 0
    if fit.rectified:
        steps = _steps(solvers[damping], linear[damping], start, ROUNDS)
        rectified = [errors[damping], *(judge.error(solution) for solution in steps)]
        rounds = int(np.argmin(rectified))
        errors[damping] = rectified[rounds]
    before, after = judge.error(start), errors[damping]
    scale = max(float(judge.y.var()), 1e-30)
    if not after < before:  # nor if either is not a number
        return None, before / scale, before / scale
    solver = whole.solver(damping)
    solution = solver.solve(start, start)
    return [solution, *_steps(solver, solution, start, rounds)][-1], before / scale, after / scale


def _steps(solver: Solver, solution: Array, near: Array, rounds: int) -> Iterator[Array]:
    for _ in range(rounds):
        solution = solver.solve(solution, near, rectified=True)
        yield solution
