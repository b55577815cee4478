"""Tasks: one setting of one model. A task is pure; its key says everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.driver.shared import STAGES, stage_name
from onnxprune.errors import OptionError
from onnxprune.options.prune import Recipe
from onnxprune.options.shared import NOISE
from onnxprune.options.version import version
from onnxprune.pipeline.steps import STEPS, read
from onnxprune.runtime import memory
from onnxprune.sweep.grids import Setting, axes_of, combined, models_of, named_for
from onnxprune.sweep.inputs import Input

if TYPE_CHECKING:
    from onnxprune.options.sweep import SweepRecipe

__all__ = ["FORMAT", "Subject", "Task", "by_model", "subjects_of", "tasks_of"]

FORMAT = 1
"""Version of what a key says, and of the files in a store."""
_SAMPLES = ("calib", "eval")
_TABLE = "device_table"
"""An option that names a file, too."""
_WHO = ("engine", "workers", "scheduler")
"""Options that no result depends on."""


@dataclass(frozen=True)
class Task:
    """One setting of one model.

    Attributes:
        model: the file.
        samples: by the option that names them; a table of latencies, too.
        step: what is done, a key of `onnxprune.pipeline.steps.STEPS`.
        table: options as a recipe file has them, except those that name samples.
        options: all of them, as plain data; of samples the last part of their name.
        settings: what differs between the tasks of a model, as text.
        libraries: shared libraries of custom operators.
        machine: that a result holds for, where it is measured; empty for any.
    """

    model: Input
    samples: Mapping[str, Input]
    step: str
    table: Mapping[str, Any]
    options: Mapping[str, Any]
    settings: Mapping[str, str]
    libraries: tuple[str, ...] = ()
    machine: str = ""

    @cached_property
    def key(self) -> str:
        """The SHA-256 of all that the result depends on."""
        return _digest({
            **self._same,
            "step": self.step,
            "options": dict(self.options),
            "samples": {name: one.digest for name, one in self.samples.items()},
            "machine": self.machine,
        })  # fmt: skip

    @cached_property
    def family(self) -> str:
        """The SHA-256 of what tasks have in common that share stages: the model, what it is fitted on, and its sizes."""
        fitted = self.samples.get("calib") or self.samples.get("eval")
        told = {"samples": fitted.digest if fitted else "", "preprocess": self.options.get("preprocess", "")}
        return _digest({**self._same, **told, "shape": self.options.get("shape", ())})

    @property
    def _same(self) -> dict[str, Any]:
        libraries = [Input.of_file(Path(one)).digest for one in self.libraries]
        bound = os.environ.get(memory.VARIABLE, "")  # batches, and with them the last bits, follow from it
        return {"format": FORMAT, "version": version(), "model": self.model.digest, "libraries": libraries, "memory": bound}

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages that the task shares with others, the first one first; none where it shares nothing."""
        if self.step != "prune" or self.options["lossless"]:
            return ()
        data = "calib" in self.samples and self.samples["calib"].text != NOISE
        named = {name: one.text for name, one in self.samples.items()}
        recipe = Recipe.from_dict({**self.table, **named}).settled(data=data)
        by_curves = recipe.scope == "sensitivity" and recipe.target.metric != "channels"
        wanted = ("statistics", "scores", "curves") if by_curves else ("statistics", "scores") if data else ()
        return tuple(f"{self.family}/{stage_name(stage, recipe)}" for stage in STAGES if stage in wanted)

    @property
    def is_timed(self) -> bool:
        """Whether its result depends on times that are measured."""
        return bool(self.machine)


@dataclass(frozen=True)
class Subject:
    """A model with its samples, and the values of options that it is tried with.

    Attributes:
        model: the file.
        samples: by the option that names them.
        step: what is done.
        axes: the values of each option.
        fixed: options that are the same for all.
        libraries: shared libraries of custom operators.
        machine: what measured results hold for.
    """

    model: Input
    samples: Mapping[str, Input]
    step: str
    axes: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    libraries: tuple[str, ...]
    machine: str

    def task(self, setting: Setting) -> Task:
        """The task of a setting.

        Raises:
            OptionError: a value makes no sense.
        """
        table, samples = {**self.fixed, **setting}, dict(self.samples)
        device = table.pop(_TABLE, "")
        if device:
            samples[_TABLE] = Input.of_samples(device, "--device-table")
        options = _options(self.step, table, samples)
        timed = self.step == "optimize" or (str(options.get("target", "")).startswith("latency") and not device)
        told = {name: _told(value) for name, value in setting.items() if len(self.axes[name]) > 1 or name == "target"}
        machine = self.machine if timed else ""
        return Task(self.model, samples, self.step, table, options, told, self.libraries, machine)

    def tasks(self) -> Iterator[Task]:
        """The task of every combination.

        Raises:
            OptionError: a value makes no sense, or there are far too many.
        """
        return map(self.task, combined(self.axes))


def subjects_of(
    recipe: SweepRecipe, table: Mapping[str, Any], *, libraries: Sequence[str] = (), machine: str = ""
) -> list[Subject]:
    """Every model of a sweep, once.

    Args:
        recipe: which models and settings.
        table: values of options, of a TOML file.
        libraries: shared libraries of custom operators.
        machine: what measured results hold for.

    Raises:
        OptionError: there are no such files, or no such options.
        ModelError: a folder has several models.
    """
    axes = axes_of(STEPS[recipe.step].options, recipe.target, recipe.option, table)
    for name in _SAMPLES:
        if name in axes:
            raise OptionError(f"--option {name}: is the same for every setting: write --{name} DATA")
    fixed = {"preprocess": recipe.preprocess, "shape": list(recipe.shape), "metric": recipe.metric}
    fixed = {name: value for name, value in fixed.items() if value and value != "auto"}
    if "metric" in fixed and not isinstance(recipe.metric, str):
        raise OptionError("metric: a sweep takes its name, as package.module:function")
    found = []
    for path in models_of(recipe.models):
        named = {name: named_for(text, path) for name in _SAMPLES if (text := getattr(recipe, name))}
        samples = {name: Input.of_samples(text, f"--{name}") for name, text in named.items()}
        found.append(Subject(Input.of_model(path), samples, recipe.step, axes, fixed, tuple(libraries), machine))
    return found


def tasks_of(subjects: Iterable[Subject]) -> list[Task]:
    """Every task of some models, model by model; those with the same key once.

    Raises:
        OptionError: a value of an option makes no sense, or there are far too many combinations.
    """
    found: dict[str, Task] = {}
    for subject in subjects:
        for task in subject.tasks():
            found.setdefault(task.key, task)
    return list(found.values())


def _options(step: str, table: Mapping[str, Any], samples: Mapping[str, Input]) -> dict[str, Any]:
    """Every option of a step, as plain data; files of samples by name: that stands in the result, too.

    Raises:
        OptionError: there is no such option, or a value makes no sense.
    """
    given = read(step, {**table, **{name: one.text for name, one in samples.items()}}, Path())
    found = {name: value for options in given.values() for name, value in options.to_dict().items()}
    found |= {name: Path(one.text).name for name, one in samples.items()}
    found = {name: value for name, value in found.items() if name not in _WHO}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # tuples become lists


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def by_model(tasks: Sequence[Task]) -> Iterator[tuple[Input, list[Task]]]:
    """The tasks of each model, in order."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.model.text, []).append(task)
    for group in groups.values():
        yield group[0].model, group
