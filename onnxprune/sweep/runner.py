"""What runs tasks of a sweep: hands them to an engine, takes in what comes back, and times what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune.driver.progress import Phase
from onnxprune.errors import EngineLost, InputError, OnnxPruneError, OutputError, ReportError, TimedOut, WorkerDied
from onnxprune.sweep import latencies
from onnxprune.sweep.store import DONE, FAILED, Outcome
from onnxprune.sweep.summary import outcome_row, timed
from onnxprune.sweep.tasks import Task, by_model
from onnxprune.sweep.work import failed, order_of

if TYPE_CHECKING:
    from onnxprune.runtime.engines.pool import Pool
    from onnxprune.sweep.asked import Sweep
    from onnxprune.sweep.index import Index

__all__ = ["Runner", "Work"]

Work = Callable[[Mapping[str, Any]], Outcome]


@dataclass
class Runner:
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
        copied: what the store has copies of, by digest.
        machine: that latencies hold for.
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
    copied: set[str] = field(default_factory=set)
    machine: str = field(default_factory=latencies.machine)

    def submit(self, pool: Pool, task: Task, work: Callable[[Mapping[str, Any]], Any] | None = None) -> Future[Any]:
        """Hand a task to the engine, with copies of what it reads in the store where workers may be on other machines.

        One that is measured runs alone. ``work`` is what is done with it, if not all.
        """
        if self.sweep.engine.scheduler or self.sweep.recipe.is_remote:
            for given in (task.model, *task.samples.values()):
                if given.digest not in self.copied:
                    self.copied.add(given.digest)
                    self.sweep.store.put_input(given)
        order = order_of(task, self.sweep.store)
        return pool.submit(work or self.work, order, memory=self.needed[task.model.text], alone=task.is_timed)

    def begun(self, total: int) -> None:
        """Say how far it is."""
        done, failures = self.over
        self.tell(Phase(f"task ({min(done + 1, total)} of {total}){f', {failures} failed' if failures else ''}", "tasks"))

    def knows(self, task: Task) -> bool:
        """Whether the store has what a task comes to; the index has it then, too."""
        outcome = self.sweep.store.result(task.key)
        if outcome is None or (outcome.state == FAILED and not outcome.lasting):
            return False
        if outcome.state == DONE and not self.sweep.store.place.has(self.sweep.store.model_name(outcome.sha256)):
            return False
        self._note(task, outcome)
        return True

    def _note(self, task: Task, outcome: Outcome) -> None:
        """Put what came of a task into the index, with its latency if the same model was timed for another task."""
        row = outcome_row(outcome, task.model.text, task.settings)
        known = self._latency(outcome.sha256) if outcome.sha256 and self.sweep.recipe.latency else {}
        self.index.put([(task.key, timed(row, known), outcome.sha256)])

    def _latency(self, sha256: str) -> Mapping[str, Any]:
        """What is known of how long a model takes on this machine, or on the workers of a cluster; empty where nothing is."""
        found = self.sweep.store.latency(sha256)
        return found if self.sweep.engine.scheduler or found.get("machine") == self.machine else {}

    def settle(self, task: Task, future: Future[Outcome]) -> Outcome | None:
        """What came of a task, which the index knows afterwards; ``None`` where it may succeed when it is repeated.

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
            return None
        else:
            outcome = failed(error, key=task.key, model=task.model.text, settings=task.settings)
        self._note(task, outcome)
        self.over = (self.over[0] + 1, self.over[1] + (outcome.state == FAILED))
        if outcome.state == FAILED:
            settings = ", ".join(f"{name} {value}" for name, value in task.settings.items())
            self.warn(f"{task.model.text}{f' ({settings})' if settings else ''}: failed: {outcome.error}")
        elif self.mlflow:
            self._log(task, outcome)
        return outcome

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

    def untimed(self, tasks: Sequence[Task]) -> dict[str, list[str]]:
        """The results of tasks that were not timed yet, by the file of their model; none where that is not asked for."""
        found: dict[str, dict[str, None]] = {}
        states = self.index.states() if self.sweep.recipe.latency else {}
        for task in tasks:
            _, sha256 = states.get(task.key, ("", ""))
            if sha256 and not self._latency(sha256):
                found.setdefault(task.model.text, {})[sha256] = None
        return {model: list(results) for model, results in found.items()}

    def time(self, pool: Pool, every: Sequence[Task]) -> None:
        """Time the results of tasks, one model at a time with nothing else running."""
        todo, done, recipe = self.untimed(every), 0, self.sweep.recipe
        total = sum(map(len, todo.values()))
        rows, states = {row["key"]: row for row in self.index.rows()}, self.index.states()
        for model, tasks in by_model(every):
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
                kept = f"{len(done)} of {len(self.sweep.tasks)} results are kept" if self.sweep.tasks else kept
            raise type(error)(f"{error}; {kept}: repeat the command to go on") from error


def _may_pass(error: BaseException) -> bool:
    """Tell whether a task that raised this may succeed when it is repeated."""
    return isinstance(error, WorkerDied | TimedOut) or not isinstance(error, OnnxPruneError)
