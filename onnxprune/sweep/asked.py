"""What a sweep is asked for: which tasks there are, where results go, and what each task takes; nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.options.gates import parse_drop
from onnxprune.options.sweep import SweepRecipe
from onnxprune.runtime.threads import available
from onnxprune.sweep import latencies
from onnxprune.sweep.grids import models_of
from onnxprune.sweep.room import check_room, task_bytes
from onnxprune.sweep.search import Goal, Searcher
from onnxprune.sweep.store import Store
from onnxprune.sweep.tasks import Subject, Task, subjects_of, tasks_of

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep:
    """What is to be done, before anything is.

    Attributes:
        recipe: which models and settings.
        engine: who does it.
        store: where results go.
        subjects: the models.
        tasks: in order, model by model; none where settings are searched for.
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
        if recipe.search:  # what it needs is there, and targets make sense
            Searcher(subjects[0].axes, Goal(recipe.least, parse_drop(recipe.max_drop)), trials=recipe.search)
        tasks = [] if recipe.search else tasks_of(subjects)
        return cls(recipe, engine, store, tuple(subjects), tuple(tasks), table)

    def needed(self) -> dict[str, int]:
        """Bytes that a task of each model takes, about, by its file.

        Raises:
            OptionError: one of them can never fit into this machine, and this machine does the work.
            ModelError: a model cannot be read.
        """
        threads = self.engine.threads or max(1, available() // (self.engine.workers or available()))
        found = {}
        for subject in self.subjects:
            task = next(subject.tasks())
            found[subject.model.text] = task_bytes(task, threads)
            if not self.engine.scheduler:
                check_room(task, found[subject.model.text])
        return found

    def repeated(self) -> Iterator[str]:
        """A line about each model that is another one once more: their tasks are the same, and stand under the first."""
        seen: dict[str, str] = {}
        for one in self.subjects:
            told = json.dumps([one.model.digest, *(f"{Path(given.text).name} {given.digest}" for given in one.samples.values())])
            if told in seen:
                yield f"{one.model.text}: is {seen[told]} once more, with the same samples: results are listed there"
            seen.setdefault(told, one.model.text)

    def to_dict(self) -> dict[str, Any]:
        """What is to be done, as plain data."""
        asked = {**self.recipe.to_dict(), **self.engine.to_dict(), "models": [str(one) for one in self.recipe.models]}
        listed = [{"key": task.key, "model": task.model.text, "settings": dict(task.settings)} for task in self.tasks]
        plain: dict[str, Any] = json.loads(json.dumps({"asked": {**asked, "options": dict(self.table)}, "tasks": listed}))
        return {**plain, "store": self.store.place.root}
