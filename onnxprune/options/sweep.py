"""What a sweep runs over, as data: the same fields for the Python API, the command line and a TOML file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from onnxprune.errors import OptionError
from onnxprune.options.commands import Prints
from onnxprune.options.documents import load_toml
from onnxprune.options.engines import EngineOptions
from onnxprune.options.fields import Option, Options, fields_of, read
from onnxprune.options.gates import parse_drop, parse_share
from onnxprune.options.shared import Metric, Preprocess, Shape
from onnxprune.options.tracking import Tracking

__all__ = ["CHEAPEST", "STEPS_SWEPT", "Pick", "PickRecipe", "Status", "SweepCommand", "SweepRecipe", "SweepReport"]

STEPS_SWEPT = ("prune", "sparsify", "quantize", "optimize")
"""Steps that make a model, and can be swept."""
CHEAPEST = ("latency", "size", "macs", "params")
"""What the best result may have the least of."""
R = TypeVar("R", bound=Options)
E = TypeVar("E", bound=Options)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://.+")


@dataclass(frozen=True)
class SweepRecipe(Options):
    """Which models, with which settings, and where the results go.

    Attributes:
        models: .onnx files, folders with one, and patterns as ``'models/*.onnx'``; or one .toml file that says all this.
        store: the folder for results, or any place that fsspec reaches, as ``s3://bucket/sweep``.
        step: what is done to each model: ``prune``, ``sparsify``, ``quantize`` or ``optimize``.
        calib: samples of each model; ``{stem}``, ``{name}`` and ``{folder}`` stand for the model's name without its suffix, with
            it, and for its folder.
        eval: samples that results are judged by, and nothing is learnt from; written as ``calib``.
        target: as the step takes it; ``latency=0.8,0.6,0.4`` are three of them, ``macs=0.9:0.2:8`` are eight from 0.9 to 0.2; may
            be repeated.
        option: another option of the step with all its values, as ``criterion=obs,flap`` or ``align=1,auto``; every combination
            is tried; may be repeated.
        search: in place of every combination try so many settings of each model, chosen one after the other by what those before
            came to, targets between those that are given included.
        max_drop: what the score may lose in such a search, as 1%.
        least: what such a search makes small: latency, size, macs or params.
        latency: time the results beside the original, when all are there.
        seconds: time for measuring each result.
        retries: how often a task is repeated whose process died or that took too long.

    Raises:
        OptionError: a field has no sensible value.
    """

    models: Annotated[tuple[Path, ...], Option(argument=True, metavar="MODELS...")] = ()
    store: Annotated[str, Option(flags="-o/--output", metavar="FOLDER")] = ""
    step: Annotated[str, Option(names=STEPS_SWEPT, noun="step that makes a model", metavar="STEP")] = "prune"
    calib: Annotated[str, Option(metavar="DATA")] = ""
    eval: Annotated[str, Option(metavar="DATA")] = ""
    preprocess: Preprocess = ""
    metric: Metric = "auto"
    target: Annotated[tuple[str, ...], Option(metavar="T")] = ()
    option: Annotated[tuple[str, ...], Option(metavar="NAME=V,V")] = ()
    shape: Shape = ()
    search: Annotated[int, Option(range="[0, inf)", metavar="N")] = 0
    max_drop: Annotated[str, Option(metavar="D", reads=parse_drop)] = "1%"
    least: Annotated[str, Option(flags="--min", names=CHEAPEST, says="write one of", metavar="WHAT")] = "latency"
    latency: bool = True
    seconds: Annotated[float, Option(range="[0.01, inf)", metavar="S")] = 0.2
    retries: Annotated[int, Option(range="[0, inf)", metavar="N")] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search and self.least == "latency" and not self.latency:
            raise OptionError("a search for --min latency needs times: leave --no-latency out, or write --min macs")

    @property
    def is_remote(self) -> bool:
        """Whether the store is no folder of this machine."""
        return is_remote(self.store)

    @classmethod
    def given(cls, recipe: Self, engine: EngineOptions) -> tuple[Self, EngineOptions, Mapping[str, Any]]:
        """What is swept and who does it, with what a TOML file adds where one stands for the models; what was given wins.

        Returns:
            Both, and the table ``[option]`` of the file, with values as TOML has them.

        Raises:
            OptionError: the file cannot be read, or something in it makes no sense; or there is no model.
        """
        table: dict[str, Any] = {}
        if len(recipe.models) == 1 and recipe.models[0].suffix == ".toml":
            path = recipe.models[0]
            found = load_toml(path)
            table = found.pop("option", {}) if isinstance(found.get("option"), dict) else {}
            if isinstance(device := table.get("device_table", []), str | list):
                tables = [device] if isinstance(device, str) else device
                table |= {"device_table": [str(path.parent / str(one)) for one in tables]} if tables else {}
            try:
                recipe, engine = _merged(found, path.parent, recipe, engine)
            except OptionError as error:
                raise OptionError(f"{path}: {error}") from error
        if not recipe.models:
            raise OptionError("no models: name .onnx files, a pattern as 'models/*.onnx', or a .toml file")
        return recipe, engine, table


def is_remote(store: str) -> bool:
    """Tell whether a place is no folder of this machine, but one that fsspec reaches."""
    return bool(_REMOTE.fullmatch(store)) and not store.startswith("file://")


def _merged(table: Mapping[str, Any], folder: Path, recipe: R, engine: E) -> tuple[R, E]:
    """Options of a file, whose paths are relative to its folder, with those that were given in their places."""
    kinds: tuple[Any, Any] = (type(recipe), type(engine))
    listed = {name: [value] if name in _LISTS and isinstance(value, str) else value for name, value in table.items()}
    made = read(kinds, {"models": [], **listed}, place=lambda name, value: _beside(name, value, folder))
    chosen = []
    for given, kind in ((recipe, kinds[0]), (engine, kinds[1])):
        own = {
            field.name: getattr(given, field.name)
            for field in fields_of(kind)
            if field.name != "models" and field.default is not MISSING and getattr(given, field.name) != field.default
        }
        chosen.append(dataclasses.replace(made[kind], **own))
    return chosen[0], chosen[1]


_LISTS = ("models", "target", "option", "shape")


def _beside(name: str, value: Any, folder: Path) -> Any:
    """A path as seen from the folder of the file."""
    if name == "models":
        return tuple(folder / one for one in value)
    if name == "store":
        return value if is_remote(value) else str(folder / value)
    if name in {"calib", "eval"} and value and value != "noise" and not re.fullmatch(r"[\w.]+:[\w.]+", value):
        return str(folder / value)
    return value


@dataclass(frozen=True, kw_only=True)
class SweepCommand(Prints):
    """`sweep`.

    Attributes:
        dry_run: check everything and print the tasks; compute nothing.
        mlflow: also log each result to MLflow: options, numbers, report and model; ``auto`` for where MLFLOW_TRACKING_URI says.
    """

    dry_run: bool = False
    mlflow: Tracking = ""


_Store = Annotated[str, Option(argument=True, metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class Status(Prints):
    """`sweep status`.

    Attributes:
        store: where the results of a sweep are.
        every: list every task.
    """

    store: _Store
    every: Annotated[bool, Option(flags="--all")] = False


@dataclass(frozen=True, kw_only=True)
class SweepReport(Prints):
    """`sweep report`.

    Attributes:
        store: where the results of a sweep are.
        output: the page; by default report.html in that folder.
        force: replace an existing output.
    """

    store: _Store
    output: Annotated[Path | None, Option(flags="-o/--output", metavar="FILE")] = None
    force: bool = False


def _floor(option: str) -> Option:
    return Option(metavar="S", reads=lambda text: parse_share(text, option, "a share, as 0.9 or 90%") if text else None)


_DROP = Option(metavar="D", reads=lambda text: parse_drop(text) if text else None)
_SCORE, _AGREEMENT = _floor("--min-score"), _floor("--min-agreement")


@dataclass(frozen=True)
class PickRecipe(Options):
    """Which result is the best.

    Attributes:
        max_drop: of results whose score is at most this much below the original's, as 1%.
        min_score: of results with at least this score, as 0.9 or 90%.
        min_agreement: of results that give so many samples the original's answer, as 95%.
        least: what it has the least of: latency, size, macs or params.
        named: of models with this name; by default the best of each.

    Raises:
        OptionError: a field has no sensible value.
    """

    max_drop: Annotated[str, _DROP] = ""
    min_score: Annotated[str, _SCORE] = ""
    min_agreement: Annotated[str, _AGREEMENT] = ""
    least: Annotated[str, Option(flags="--min", names=CHEAPEST, says="write one of", metavar="WHAT")] = "latency"
    named: Annotated[str, Option(flags="--model", metavar="GLOB")] = ""


@dataclass(frozen=True, kw_only=True)
class Pick(Prints):
    """`sweep pick`.

    Attributes:
        store: where the results of a sweep are.
        output: also write the model here; a folder for those of several models.
        force: replace an existing output.
    """

    store: _Store
    output: Annotated[Path | None, Option(flags="-o/--output", metavar="OUT")] = None
    force: bool = False
