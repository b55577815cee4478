"""A search in place of a grid: settings of each model one after the other, by what those before came to."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune.errors import EngineLost
from onnxprune.options.gates import parse_drop
from onnxprune.sweep.preview import can_preview, preview
from onnxprune.sweep.search import Goal, Preview, Searcher, Settings
from onnxprune.sweep.tasks import Subject, Task

if TYPE_CHECKING:
    from onnxprune.runtime.engines.pool import Pool
    from onnxprune.sweep.runner import Runner

__all__ = ["searched"]


@dataclass
class _Search:
    """The search for one model.

    Attributes:
        subject: the model.
        searcher: proposes settings.
        left: how many may still be tried.
        running: how many are being tried.
    """

    subject: Subject
    searcher: Searcher
    left: int
    running: int = 0

    def ask(self) -> tuple[Settings, Task] | None:
        """The next setting with its task; ``None`` where there is none."""
        setting = self.searcher.ask() if self.left else None
        if setting is None:
            self.left = 0
            return None
        self.left -= 1
        return setting, self.subject.task(setting)


@dataclass
class _Trial:
    """Settings that are being tried.

    Attributes:
        search: of whose they are.
        setting: the settings.
        task: with them.
        foreseen: whether it is known what they promise, and they are done now.
    """

    search: _Search
    setting: Settings
    task: Task
    foreseen: bool


def searched(runner: Runner, pool: Pool) -> tuple[list[Task], int]:
    """Try settings of each model towards the least cost within a drop; the tasks that were done, and how many were given up.

    What the store has is not done again, and counts as tried. Where the cost is a latency, each result is timed at once.

    Raises:
        OptionError: what proposes settings is not installed, or a target makes no sense.
        OutputError: the store cannot be written.
        EngineLost: the cluster is gone.
    """
    recipe, subjects = runner.sweep.recipe, runner.sweep.subjects
    goal = Goal(recipe.least, parse_drop(recipe.max_drop))
    searches = [_Search(one, Searcher(one.axes, goal, trials=recipe.search), recipe.search) for one in subjects]
    each = max(1, pool.workers // len(searches))  # a proposal is better, the more is known
    done: dict[str, Task] = {}
    given_up = 0
    flight: dict[Future[Any], _Trial] = {}

    def start(trial: _Trial) -> None:
        if trial.foreseen:
            flight[runner.submit(pool, trial.task)] = trial
        else:
            flight[runner.submit(pool, trial.task, preview)] = trial

    while True:
        for one in searches:
            while one.running < each and len(flight) < pool.workers and (asked := one.ask()) is not None:
                setting, task = asked
                if runner.knows(task):
                    done[task.key] = task
                    one.searcher.tell(setting, _row(runner, pool, task))
                    continue
                one.running += 1
                start(_Trial(one, setting, task, not can_preview(task)))
        if not flight:
            return list(done.values()), given_up
        runner.begun(recipe.search * len(searches) - given_up)
        for future in wait(flight, return_when=FIRST_COMPLETED).done:
            trial = flight.pop(future)
            if not trial.foreseen:
                if _is_hopeless(trial, goal, future):
                    given_up, trial.search.running = given_up + 1, trial.search.running - 1
                else:
                    start(replace(trial, foreseen=True))
            elif runner.settle(trial.task, future) is None:
                start(trial)
            else:
                done[trial.task.key] = trial.task
                trial.search.running -= 1
                trial.search.searcher.tell(trial.setting, _row(runner, pool, trial.task))


def _is_hopeless(trial: _Trial, goal: Goal, future: Future[Any]) -> bool:
    """Tell whether settings need not be tried, by what they promise; where that is not known, they are.

    Raises:
        EngineLost: the cluster is gone.
    """
    error = future.exception()
    if isinstance(error, EngineLost):
        raise error
    found = {} if error else future.result()
    promises = (Preview(cost=found.get(goal.cost)), Preview(drift=found.get("drift")))
    return any(trial.search.searcher.hopeless(trial.setting, one) for one in promises)


def _row(runner: Runner, pool: Pool, task: Task) -> Mapping[str, Any]:
    """What a task came to, timed if that counts."""
    if runner.sweep.recipe.least == "latency":
        runner.time(pool, [task])
    return runner.index.row(task.key)
