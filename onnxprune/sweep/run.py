"""A sweep, carried out: what the store has is left out, the rest goes to an engine, and what comes back goes into the index."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OutputError
from onnxprune.ir.outputs import take_lock
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import SweepRecipe
from onnxprune.options.version import version
from onnxprune.runtime.engines import open_engine
from onnxprune.sweep.asked import Sweep
from onnxprune.sweep.index import FILE, Index, Rows
from onnxprune.sweep.runner import Runner, Work
from onnxprune.sweep.schedule import Schedule
from onnxprune.sweep.searching import searched
from onnxprune.sweep.store import DONE, FAILED, Outcome, Store
from onnxprune.sweep.summary import counts, marked, outcome_row, timed, waiting_row
from onnxprune.sweep.tasks import Task
from onnxprune.sweep.work import carry_out

if TYPE_CHECKING:
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["run_sweep"]

_AHEAD = 2
"""Tasks that are handed to the engine for each worker: none of them waits for us."""


def run_sweep(
    recipe: SweepRecipe,
    engine: EngineOptions | None = None,
    *,
    custom_ops: Sequence[str] = (),
    mlflow: str = "",
    progress: Callable[[str], None] | None = None,
    warn: Callable[[str], object] | None = None,
    work: Work = carry_out,
) -> dict[str, Any]:
    """Prune many models with many settings, and keep every result; what is there already is not done again.

    Args:
        recipe: which models and settings, and where results go.
        engine: who does it; by default processes of this machine.
        custom_ops: shared libraries of custom operators.
        mlflow: the tracking URI that results are logged to; empty for none.
        progress: told what goes on.
        warn: told of each task that failed.
        work: does a task, in a worker.

    Returns:
        What happened, as plain data: ``rows`` with a row for each task.

    Raises:
        OptionError: the recipe makes no sense, or a task can never fit into this machine; before anything is computed.
        OutputError: the store cannot be written; what is done is kept.
        EngineLost: the cluster is gone; what is done is kept.
    """
    start, sweep = time.perf_counter(), Sweep.of(recipe, engine, custom_ops)
    tell, told = progress or (lambda _: None), warn or (lambda _: None)
    for text in sweep.repeated():
        told(text)
    with contextlib.ExitStack() as stack:
        needed, pool = {}, None
        if not sweep.store.asked():  # nothing is written before it is known that work can begin
            needed, pool = sweep.needed(), stack.enter_context(open_engine(sweep.engine))
        stack.enter_context(_locked(sweep.store))
        index = stack.enter_context(Index(sweep.store.own / FILE))
        left = _unfinished(sweep, index)
        sweep.store.place.write("sweep.json", json.dumps({**sweep.to_dict(), "version": version()}).encode())
        runner = Runner(sweep, index, needed, tell, told, work, mlflow)
        tasks, given_up = list(sweep.tasks), 0
        if left or sweep.recipe.search or runner.untimed(tasks):
            runner.needed = needed or sweep.needed()
            pool = pool or stack.enter_context(open_engine(sweep.engine))
            with runner.accounted():
                if sweep.recipe.search:
                    tasks, given_up = searched(runner, pool)
                else:
                    _drained(runner, pool, left)
                runner.time(pool, tasks)
        keys = {task.key for task in tasks}
        rows = marked([row for row in index.rows() if row["key"] in keys])
    found = _document(sweep, rows, runner, time.perf_counter() - start)
    return {**found, "given_up": given_up} if sweep.recipe.search else found


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Only one process at a time runs a sweep in a folder, where its file system has locks.

    Raises:
        OutputError: another one does, or the folder cannot be written.
    """
    folder = store.own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder / "sweep.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except FileExistsError as error:
        raise OutputError(f"{folder}: is a file: name a folder with -o") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        if not take_lock(number, wait=False):
            raise OutputError(
                f"{store.place.root}: another sweep is running there: wait for it, or write elsewhere with -o FOLDER"
            )
        yield
    finally:
        os.close(number)


def _unfinished(sweep: Sweep, index: Index) -> list[Task]:
    """The tasks that are left; the index knows all others afterwards."""
    store, tasks = sweep.store, sweep.tasks
    rows, states = {row["key"]: row for row in index.rows()}, index.states()
    keys, models = store.keys(), store.models()
    found: list[tuple[str, Mapping[str, Any], str]] = []
    left = []
    for task in tasks:
        state, sha256 = states.get(task.key, ("", ""))
        settings = dict(task.settings)
        if task.key in keys and state == DONE and sha256 in models:
            row = {**rows[task.key], "model": task.model.text, "settings": settings}
            missing = sweep.recipe.latency and row["latency_ms"] is None  # who timed it was killed before that was noted
            found.append((task.key, timed(row, store.latency(sha256)) if missing else row, sha256))
            continue
        outcome = store.result(task.key) if task.key in keys else None
        if (
            outcome is None
            or (outcome.state == DONE and outcome.sha256 not in models)
            or (outcome.state == FAILED and not outcome.lasting)
        ):
            left.append(task)
            found.append((task.key, waiting_row(task.model.text, settings), ""))
            continue
        row = outcome_row(outcome, task.model.text, settings)
        found.append((task.key, timed(row, store.latency(outcome.sha256)) if outcome.sha256 else row, outcome.sha256))
    index.order((task.key, place, waiting_row(task.model.text, task.settings)) for place, task in enumerate(tasks))
    index.put(found)
    return left


def _drained(runner: Runner, pool: Pool, left: Sequence[Task]) -> None:
    """Do what is left: first what counts, then what is measured, with nothing else running."""
    schedule: Schedule[Task] = Schedule()
    for measured in (False, True):
        schedule.add(task for task in left if task.is_timed == measured)
        flight: dict[Future[Outcome], Task] = {}
        while True:
            while len(flight) < _AHEAD * pool.workers and (task := schedule.next()) is not None:
                flight[runner.submit(pool, task)] = task
            if not flight:
                break
            runner.begun(len(left))
            for future in wait(flight, return_when=FIRST_COMPLETED).done:
                task = flight.pop(future)
                outcome = runner.settle(task, future)
                schedule.over(task, done=outcome is not None and (outcome.state == DONE or outcome.lasting))
                if outcome is None:
                    schedule.add([task])


def _document(sweep: Sweep, rows: Rows, runner: Runner, seconds: float) -> dict[str, Any]:
    """What happened, as plain data."""
    found = counts(rows)
    return {
        "store": sweep.store.place.root,
        "tasks": len(rows),
        "done": found[DONE],
        "failed": found[FAILED],
        "reused": len(rows) - runner.over[0],
        "repeated": sum(runner.tried.values()),
        "seconds": seconds,
        "rows": rows,
    }
