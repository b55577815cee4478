"""A sweep, carried out: what the store has is left out, the rest goes to an engine, and what comes back goes into the index."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune.driver.progress import Phase
from onnxprune.errors import EngineLost, InputError, OnnxPruneError, OptionError, OutputError, ReportError, TimedOut, WorkerDied
from onnxprune.ir.outputs import take_lock
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import SweepRecipe
from onnxprune.options.version import version
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.threads import available
from onnxprune.sweep import latencies
from onnxprune.sweep.grids import models_of
from onnxprune.sweep.index import FILE, Index, Rows
from onnxprune.sweep.room import check_room, task_bytes
from onnxprune.sweep.schedule import Schedule
from onnxprune.sweep.store import DONE, FAILED, Outcome, Store
from onnxprune.sweep.summary import counts, marked, outcome_row, timed, waiting_row
from onnxprune.sweep.tasks import Subject, Task, by_model, subjects_of, tasks_of
from onnxprune.sweep.work import carry_out, failed, order_of

if TYPE_CHECKING:
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["Sweep", "run_sweep"]

_AHEAD = 2
"""Tasks that are handed to the engine for each worker: none of them waits for us."""
Work = Callable[[Mapping[str, Any]], Outcome]


@dataclass(frozen=True)
class Sweep:
    """What is to be done, before anything is.

    Attributes:
        recipe: which models and settings.
        engine: who does it.
        store: where results go.
        subjects: the models.
        tasks: in order, model by model.
        table: values of options that a TOML file names.
    """

    recipe: SweepRecipe
    engine: EngineOptions
    store: Store
    subjects: tuple[Subject, ...]
    tasks: tuple[Task, ...]
    table: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: SweepRecipe, engine: EngineOptions | None = None, libraries: Sequence[str] = ()) -> Sweep:
        """Read what a user wrote; nothing is computed.

        Raises:
            OptionError: something in it makes no sense, or a file is not there.
            ModelError: a folder has several models.
        """
        recipe, engine, table = SweepRecipe.given(recipe, engine or EngineOptions())
        models_of(recipe.models)  # a word that is no file is told before what else is missing
        if not recipe.store:
            raise OptionError("no place for results: give a folder with -o FOLDER")
        store = Store(recipe.store)
        subjects = subjects_of(recipe, table, libraries=libraries, machine=latencies.machine())
        return cls(recipe, engine, store, tuple(subjects), tuple(tasks_of(subjects)), table)

    def needed(self) -> dict[str, int]:
        """Bytes that a task of each model takes, about, by its file.

        Raises:
            OptionError: one of them can never fit into this machine, and this machine does the work.
            ModelError: a model cannot be read.
        """
        threads = self.engine.threads or max(1, available() // (self.engine.workers or available()))
        found = {model.text: task_bytes(tasks[0], threads) for model, tasks in by_model(self.tasks)}
        if not self.engine.scheduler:
            for model, tasks in by_model(self.tasks):
                check_room(tasks[0], found[model.text])
        return found

    def to_dict(self) -> dict[str, Any]:
        """What is to be done, as plain data."""
        asked = {**self.recipe.to_dict(), **self.engine.to_dict(), "models": [str(one) for one in self.recipe.models]}
        listed = [{"key": task.key, "model": task.model.text, "settings": dict(task.settings)} for task in self.tasks]
        plain: dict[str, Any] = json.loads(json.dumps({"asked": {**asked, "options": dict(self.table)}, "tasks": listed}))
        return {**plain, "store": self.store.place.root}


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
    tell = progress or (lambda _: None)
    with _locked(sweep.store), Index(sweep.store.own / FILE) as index:
        left = _unfinished(sweep, index)
        sweep.store.place.write("sweep.json", json.dumps({**sweep.to_dict(), "version": version()}).encode())
        needed = sweep.needed() if left else {}
        run = _Run(sweep, index, needed, tell, warn or (lambda _: None), work, mlflow)
        if left or run.untimed():
            with run.accounted(), open_engine(sweep.engine) as pool:
                run.do(pool, left)
                run.time(pool)
        keys = {task.key for task in sweep.tasks}
        rows = marked([row for row in index.rows() if row["key"] in keys])
    return _document(sweep, rows, len(left), run.tried, time.perf_counter() - start)


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
            found.append((task.key, {**rows[task.key], "model": task.model.text, "settings": settings}, sha256))
            continue
        outcome = store.result(task.key) if task.key in keys else None
        if (
            outcome is None
            or (outcome.state == DONE and outcome.sha256 not in models)
            or (_failed(outcome) and not outcome.lasting)
        ):
            left.append(task)
            found.append((task.key, waiting_row(task.model.text, settings), ""))
            continue
        row = outcome_row(outcome, task.model.text, settings)
        found.append((task.key, timed(row, store.latency(outcome.sha256)) if outcome.sha256 else row, outcome.sha256))
    index.order((task.key, place, waiting_row(task.model.text, task.settings)) for place, task in enumerate(tasks))
    index.put(found)
    return left


def _failed(outcome: Outcome) -> bool:
    return outcome.state == FAILED


@dataclass
class _Run:
    """A sweep under way.

    Attributes:
        sweep: what is to be done.
        index: of the store.
        needed: bytes that a task of each model takes.
        tell: told what goes on.
        warn: told of each task that failed.
        work: does a task.
        mlflow: where results are logged; empty for nowhere.
        tried: how often tasks were repeated, by key.
        over: how many tasks of this run are over, and how many of them failed.
    """

    sweep: Sweep
    index: Index
    needed: Mapping[str, int]
    tell: Callable[[str], None]
    warn: Callable[[str], object]
    work: Work
    mlflow: str = ""
    tried: dict[str, int] = field(default_factory=dict)
    over: tuple[int, int] = (0, 0)

    def do(self, pool: Pool, left: Sequence[Task]) -> None:
        """Do what is left: first what counts, then what is measured, with nothing else running."""
        if self.sweep.engine.scheduler or self.sweep.recipe.is_remote:
            for model, tasks in by_model(left):
                self.tell(f"copying inputs: {model.text}")
                for given in (model, *tasks[0].samples.values()):
                    self.sweep.store.put_input(given)
        schedule: Schedule[Task] = Schedule()
        for alone in (False, True):
            schedule.add(task for task in left if task.is_timed == alone)
            self._drain(pool, schedule, len(left), alone=alone)

    def _drain(self, pool: Pool, schedule: Schedule[Task], total: int, *, alone: bool) -> None:
        flight: dict[Future[Outcome], Task] = {}
        while True:
            while len(flight) < _AHEAD * pool.workers and (task := schedule.next()) is not None:
                order = order_of(task, self.sweep.store)
                future = pool.submit(self.work, order, memory=self.needed[task.model.text], alone=alone)
                flight[future] = task
            if not flight:
                return
            done, failures = self.over
            self.tell(Phase(f"task ({min(done + 1, total)} of {total}){f', {failures} failed' if failures else ''}", "tasks"))
            for future in wait(flight, return_when=FIRST_COMPLETED).done:
                self._settle(flight.pop(future), future, schedule)

    def _settle(self, task: Task, future: Future[Outcome], schedule: Schedule[Task]) -> None:
        """Take in what came of a task; one that may succeed when it is repeated waits again.

        Raises:
            OutputError: the store cannot be written.
            EngineLost: the cluster is gone.
        """
        error = future.exception()
        if isinstance(error, OutputError | EngineLost):
            raise error
        if error is None:
            outcome = future.result()
        elif _may_pass(error) and self.tried.get(task.key, 0) < self.sweep.recipe.retries:
            self.tried[task.key] = self.tried.get(task.key, 0) + 1
            schedule.over(task, done=False)
            schedule.add([task])
            return
        else:
            outcome = failed(error, key=task.key, model=task.model.text, settings=task.settings)
        schedule.over(task, done=outcome.state == DONE or outcome.lasting)
        row = outcome_row(outcome, task.model.text, task.settings)
        self.index.put([(task.key, row, outcome.sha256)])
        self.over = (self.over[0] + 1, self.over[1] + _failed(outcome))
        if _failed(outcome):
            settings = ", ".join(f"{name} {value}" for name, value in task.settings.items())
            self.warn(f"{task.model.text}{f' ({settings})' if settings else ''}: failed: {outcome.error}")
        elif self.mlflow:
            self._log(task, outcome)

    def _log(self, task: Task, outcome: Outcome) -> None:
        from onnxprune.driver.tracking import log_run
        from onnxprune.ir.temporary import temporary_folder

        with temporary_folder() as folder:
            path = self.sweep.store.fetch_model(outcome.sha256, folder)
            told = {"command": "sweep", "options": dict(task.options), **outcome.report, "output": str(path)}
            try:
                log_run(told, self.mlflow)
            except ReportError as error:
                self.mlflow = ""
                self.warn(f"{error}; nor is any other result of this sweep")

    def untimed(self) -> dict[str, list[str]]:
        """The results that were not timed yet, by the file of their model; none where that is not asked for."""
        found: dict[str, dict[str, None]] = {}
        states, here = self.index.states() if self.sweep.recipe.latency else {}, latencies.machine()
        for task in self.sweep.tasks:
            _, sha256 = states.get(task.key, ("", ""))
            latency = self.sweep.store.latency(sha256) if sha256 else {"machine": here}
            if not latency or (latency.get("machine") != here and not self.sweep.engine.scheduler):
                found.setdefault(task.model.text, {})[sha256] = None
        return {model: list(results) for model, results in found.items()}

    def time(self, pool: Pool) -> None:
        """Time results, one model at a time with nothing else running."""
        todo, done, recipe = self.untimed(), 0, self.sweep.recipe
        total = sum(map(len, todo.values()))
        rows, states = {row["key"]: row for row in self.index.rows()}, self.index.states()
        for model, tasks in by_model(self.sweep.tasks):
            for part in latencies.parts(todo.get(model.text, [])):
                self.tell(Phase(f"timing results ({done + 1} of {total})", "latency"))
                order = {
                    "store": self.sweep.store.root,
                    "model": model.to_dict(),
                    "results": list(part),
                    "seconds": recipe.seconds,
                    "shape": list(recipe.shape),
                    "libraries": list(tasks[0].libraries),
                }
                done += len(part)
                try:
                    found = pool.submit(latencies.measured, order, memory=self.needed.get(model.text, 0), alone=True).result()
                except (OutputError, EngineLost):
                    raise
                except (OnnxPruneError, OSError) as error:
                    self.warn(f"{model.text}: latency was not measured: {error}")
                    continue
                known = dict(zip(part, found, strict=True))
                for sha256, told in known.items():
                    self.sweep.store.put_latency(sha256, told)
                self.index.put(
                    (task.key, timed(rows[task.key], known[states[task.key][1]]), states[task.key][1])
                    for task in tasks
                    if states[task.key][1] in known
                )

    @contextlib.contextmanager
    def accounted(self) -> Iterator[None]:
        """A context whose errors say what is kept."""
        try:
            yield
        except (OutputError, EngineLost) as error:
            kept = "what is done is kept"
            with contextlib.suppress(InputError):
                done = self.sweep.store.keys().intersection(task.key for task in self.sweep.tasks)
                kept = f"{len(done)} of {len(self.sweep.tasks)} results are kept"
            raise type(error)(f"{error}; {kept}: repeat the command to go on") from error


def _may_pass(error: BaseException) -> bool:
    """Tell whether a task that raised this may succeed when it is repeated."""
    return isinstance(error, WorkerDied | TimedOut) or not isinstance(error, OnnxPruneError)


def _document(sweep: Sweep, rows: Rows, left: int, tried: Mapping[str, int], seconds: float) -> dict[str, Any]:
    """What happened, as plain data."""
    found = counts(rows)
    return {
        "store": sweep.store.place.root,
        "tasks": len(rows),
        "done": found[DONE],
        "failed": found[FAILED],
        "reused": len(rows) - left,
        "repeated": sum(tried.values()),
        "seconds": seconds,
        "rows": rows,
    }
