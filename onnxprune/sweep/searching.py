"""A search in place of a grid: settings of each model one after the other, by what those before came to."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.options.gates import parse_drop
from onnxprune.sweep.search import Goal, Searcher, Settings
from onnxprune.sweep.store import Outcome
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


def searched(runner: Runner, pool: Pool) -> list[Task]:
    """Try settings of each model towards the least cost within a drop; the tasks that were tried.

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
    tried: dict[str, Task] = {}
    flight: dict[Future[Outcome], tuple[_Search, Settings, Task]] = {}
    while True:
        for one in searches:
            while one.running < each and len(flight) < pool.workers and (asked := one.ask()) is not None:
                setting, task = asked
                tried[task.key] = task
                if runner.knows(task):
                    one.searcher.tell(setting, _row(runner, pool, task))
                    continue
                one.running += 1
                flight[runner.submit(pool, task)] = one, setting, task
        if not flight:
            return list(tried.values())
        runner.begun(recipe.search * len(searches))
        for future in wait(flight, return_when=FIRST_COMPLETED).done:
            one, setting, task = flight.pop(future)
            if runner.settle(task, future) is None:
                flight[runner.submit(pool, task)] = one, setting, task
                continue
            one.running -= 1
            one.searcher.tell(setting, _row(runner, pool, task))


def _row(runner: Runner, pool: Pool, task: Task) -> Mapping[str, Any]:
    """What a task came to, timed if that counts."""
    if runner.sweep.recipe.least == "latency":
        runner.time(pool, [task])
    return runner.index.row(task.key)
