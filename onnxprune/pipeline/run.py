"""A recipe file, carried out: prune, train, quantise, encode, ..., each step on what the last one left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.data.samples import optional_samples, sized
from onnxprune.driver.destination import Destination
from onnxprune.driver.judgement import Jury
from onnxprune.driver.tracking import check_tracking, log_run
from onnxprune.errors import OptionError, OutputError
from onnxprune.ir import files
from onnxprune.ir.folders import model_in
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import replace_file
from onnxprune.ir.temporary import temporary_folder
from onnxprune.ir.unchanged import watched
from onnxprune.options.documents import load_json, load_toml
from onnxprune.options.fields import fields_of, meant
from onnxprune.options.functions import NAMED, source_file
from onnxprune.options.gates import Gates
from onnxprune.options.shared import NOISE
from onnxprune.options.tracking import tracking_uri
from onnxprune.pages.contents import ends
from onnxprune.pipeline.steps import STEPS, Given, StepInput, located, read
from onnxprune.runtime.custom_operators import custom_operators, libraries
from onnxprune.runtime.memory import max_memory, read_bytes
from onnxprune.verify.metrics import Evaluation

__all__ = ["Build", "Step", "run"]

_GATES = tuple(field.name for field in fields_of(Gates))
_OWN = ("model", "output", *_GATES, "preprocess", "shape", "custom_ops", "max_memory", "mlflow")
"""Keys above the first table."""
_LISTS = ("shape", "custom_ops")
"""Those that are lists of texts."""


@dataclass(frozen=True)
class Step:
    """One table of a recipe file.

    Attributes:
        name: of the table.
        do: what it does, a key of `onnxprune.pipeline.steps.STEPS`.
        options: as they were read.
        table: as the file has them.
    """

    name: str
    do: str
    options: Given
    table: Mapping[str, Any]


@dataclass(frozen=True)
class Build:
    """A recipe file.

    Attributes:
        path: of the file.
        model: what it begins with.
        output: what is written.
        steps: in the order of the file.
        gates: what comes of it must be as good as this, and the samples that it is scored on after every step.
        preprocess: how the images of ``eval`` become arrays.
        shape: sizes of inputs, for every step that does not say its own.
        custom_ops: shared libraries of custom operators of ONNX Runtime, for every step.
        max_memory: what every step may take, as 2G or 512M; empty for no bound of its own.
        mlflow: the tracking URI that the run is logged to; empty for none.
    """

    path: Path
    model: Path
    output: Path
    steps: tuple[Step, ...]
    gates: Gates = field(default_factory=Gates)
    preprocess: str = ""
    shape: tuple[str, ...] = ()
    custom_ops: tuple[Path, ...] = ()
    max_memory: str = ""
    mlflow: str = ""

    @classmethod
    def load(cls, path: str | Path) -> Build:
        """Read a recipe file: ``model`` and ``output``, then a table for every step, called what it does.

        A table that is called otherwise says ``do = "prune"``. Options are those of the command line, by name; paths are relative
        to the file.

        Raises:
            OptionError: no such file, not TOML, or something in it that makes no sense; names the step and the key.
        """
        path = Path(path)
        data = load_toml(path)
        tables = {name: value for name, value in data.items() if isinstance(value, dict)}
        own = {name: value for name, value in data.items() if name not in tables}
        for name, value in own.items():
            if name not in _OWN:
                raise OptionError(f"{path}: there is no key {name!r} above the first table{meant(name, _OWN)}")
            if name in _LISTS:
                if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
                    raise OptionError(f"{path}: {name} = {value!r} is not a list of texts")
            elif not isinstance(value, str):
                raise OptionError(f"{path}: {name} = {value!r} is not a text")
        for name in ("model", "output"):
            if name not in own:
                raise OptionError(f'{path}: has no {name}: write {name} = "{name}.onnx" above the first table')
        if not tables:
            raise OptionError(f"{path}: has no steps: write a table for each, as [prune]; there are {', '.join(STEPS)}")
        folder = path.parent
        try:
            judged = located("eval", own.get("eval", ""), folder)
            if "max_memory" in own:
                read_bytes(own["max_memory"], "max_memory =")
            if own.get("mlflow"):
                tracking_uri(own["mlflow"])
            gates = Gates.from_dict({**{name: own[name] for name in _GATES if name in own}, "eval": judged})
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error
        shape = tuple(own.get("shape", ()))
        steps = tuple(_step(path, name, table, shape) for name, table in tables.items())
        return cls(
            path,
            model_in(folder / own["model"]),
            folder / own["output"],
            steps,
            gates,
            own.get("preprocess", ""),
            shape,
            tuple(folder / library for library in own.get("custom_ops", ())),
            own.get("max_memory", ""),
            own.get("mlflow", ""),
        )

    @property
    def names_functions(self) -> bool:
        """Whether a function of a user's is named anywhere."""
        texts = [self.gates.eval, self.gates.metric, *(text for step in self.steps for text in _texts(step))]
        return any(isinstance(text, str) and NAMED.search(text) for text in texts)

    @property
    def reads(self) -> Iterator[Path]:
        """The files that are named, besides the model."""
        for text in filter(None, (self.gates.eval, *(text for step in self.steps for text in _texts(step)))):
            yield from _files_named(text)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        steps = [{"name": step.name, "do": step.do, "options": dict(step.table)} for step in self.steps]
        return {"recipe": str(self.path), "model": str(self.model), "output": str(self.output), "steps": steps}


def _step(path: Path, name: str, table: Mapping[str, Any], shape: Sequence[str]) -> Step:
    table = dict(table)
    do = table.pop("do", name)
    try:
        if not re.fullmatch(r"[\w-]+", name):
            raise OptionError("is no name for a step, which files are called by: write letters, digits and hyphens")
        if not isinstance(do, str) or do not in STEPS:
            raise OptionError(f"there is no step {do!r}{meant(str(do), STEPS)}")
        return Step(name, do, read(do, {"shape": list(shape), **table}, path.parent), table)
    except OptionError as error:
        raise OptionError(f"{path}: [{name}] {error}") from error


@watched()
def run(
    recipe: str | Path | Build,
    *,
    keep: str | Path | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Carry out a recipe file, and write what comes of it.

    Args:
        recipe: the file.
        keep: a folder for the model after every step, and for checkpoints of training. Steps that are found finished there, with
            the same options, model and data, are not done again.
        force: whether an existing output is replaced.
        progress: told what goes on.

    Returns:
        What happened, as plain data: ``steps`` with the report of each, its bytes and score.

    Raises:
        OptionError: the file makes no sense; before anything is computed.
        OnnxPruneError: what a step raises.
        ReportError: the run cannot be logged; the output is written.
    """
    build, tell = recipe if isinstance(recipe, Build) else Build.load(recipe), progress or (lambda _: None)
    place = Destination.of(build.output, build.model, force=force)
    files.check_apart(place.file, (build.path, *build.reads))
    if build.mlflow:
        check_tracking(build.mlflow)
    original = Model.of(build.model, build.shape)
    found: list[dict[str, Any]] = []
    with custom_operators(*build.custom_ops), contextlib.ExitStack() as stack:
        if build.max_memory:
            stack.enter_context(max_memory(build.max_memory))
        folder = _folder(keep) if keep else stack.enter_context(temporary_folder())
        if build.names_functions:
            stack.enter_context(_importable(build.path.parent))
        score: _Scorer | None = None
        jury = _jury(build, original)
        if build.gates.eval and jury.judges:
            score = _Scorer(Evaluation(original, jury.judges, build.gates.metric))
        before = score(original) if score else None
        model = build.model
        for number, step in enumerate(build.steps, 1):
            title = f"{number}/{len(build.steps)} {step.name}"
            tell(title)
            model, report = _carried_out(step, number, model, build, folder, _titled(tell, title))
            if score and "score" not in report:
                report["score"] = score(Model.of(model))
            found.append({**report, "options": dict(step.table)})
        result = Model.of(model)
        tell("comparing outputs with the original's")
        judged = jury.judge(result, evaluation=score.evaluation if score else None)
        tell("writing")
        known = {**({"score": before} if score else {}), "judgement": judged.to_dict()}
        saved = place.save(result, {**known, "size": [files.source_bytes(original), files.written_bytes(result)]})
    sizes = [files.size_on_disk(build.model), files.size_on_disk(place.file)]
    report = {**build.to_dict(), **known, "judges": _judges(build), "bytes": sizes, "steps": found, "notes": list(saved.notes)}
    report |= ends(report)
    return {**report, "mlflow": log_run(report, build.mlflow)} if build.mlflow else report


def _titled(tell: Callable[[str], None], title: str) -> Callable[[str], None]:
    return lambda text: tell(f"{title}: {text}")


def _carried_out(
    step: Step, number: int, model: Path, build: Build, folder: Path, tell: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """The model after a step, and what happened; taken from the folder if it is there."""
    made, done = folder / f"{number}-{step.name}.onnx", folder / f"{number}-{step.name}.json"
    sign = _signature(step, model, build.model)
    known = _record(done)
    if known and known["signature"] == sign and (not known["writes"] or _digest(made) == known["sha256"]):
        return made if known["writes"] else model, {**json.loads(known["report"]), "reused": True}
    start = time.perf_counter()
    checkpoint = folder / f"{number}-{step.name}-{sign[:12]}.checkpoint"
    try:
        written, report = STEPS[step.do].run(StepInput(model, build.model, checkpoint, tell), step.options)
    except OptionError as error:
        raise OptionError(f"{build.path}: [{step.name}] {error}") from error
    if written:
        written.save(made, force=True)
    result = made if written else model
    report = {"name": step.name, "do": step.do, "report": report, "bytes": files.size_on_disk(result)}
    report |= {"seconds": time.perf_counter() - start, "reused": False}
    text = json.dumps(report, default=str)
    record = {"signature": sign, "writes": bool(written), "sha256": _digest(made) if written else "", "report": text}
    with replace_file(done) as file:
        file.write(json.dumps({**record, "whole": _hash(record)}).encode())
    checkpoint.unlink(missing_ok=True)
    return result, json.loads(text)


def _record(done: Path) -> dict[str, Any] | None:
    """What is known of a finished step; ``None`` if it has not finished, or if the file is not as it was written."""
    try:
        record = load_json(done)
        return record if record.pop("whole") == _hash(record) else None
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _signature(step: Step, model: Path, original: Path) -> str:
    """What a step's result depends on: its options, the models, and the files and functions that are named."""
    options = [{name: value for name, value in one.to_dict().items() if name != "log"} for one in step.options.values()]
    named = [path for text in _texts(step) for path in _files_named(text)]
    stamps = [_stamp(path) for path in (*named, *map(Path, libraries()))]
    return _hash([step.do, options, _digest(model), _digest(original), stamps])


def _texts(step: Step) -> Iterator[str]:
    """The options of a step that are texts, except the log, which changes nothing."""
    for one in step.options.values():
        yield from (value for name, value in one.to_dict().items() if name != "log" and isinstance(value, str) and value)


def _files_named(text: str) -> Iterator[Path]:
    """The files that an option names: one, those in a folder, or the modules in the folder of a function."""
    path = Path(text)
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
    elif path.exists():
        yield path
    else:
        for name in NAMED.findall(text):
            source = source_file(name)
            yield from sorted(source.parent.glob("*.py")) if source else ()


def _stamp(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size


def _digest(path: Path) -> str:
    """Of a model and the files with its weights."""
    return " ".join(files.sha256(part) for part in files.model_files(path)) if path.is_file() else ""


def _judges(build: Build) -> dict[str, str]:
    """Which samples judge the result in the end: those of ``eval``, else those of the first ``calib`` that is no noise."""
    if build.gates.eval:
        return {"model": str(build.model), "eval": build.gates.eval, "calib": "", "preprocess": build.preprocess}
    named = [(one.calib, one.preprocess) for step in build.steps for one in step.options.values() if getattr(one, "calib", "")]
    calib, preprocess = next((pair for pair in named if pair[0] != NOISE), ("", ""))
    return {"model": str(build.model), "eval": "", "calib": calib, "preprocess": preprocess}


def _jury(build: Build, original: Model) -> Jury:
    """What judges the result in the end; of ``calib``, what is held out."""
    told = _judges(build)
    try:
        given = optional_samples(told["calib"], original.inputs, told["preprocess"] if told["calib"] else "")
        return Jury.of(build.gates, sized(original, given), given, told["preprocess"])
    except OptionError as error:
        raise OptionError(f"{build.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Scores models after each step."""

    evaluation: Evaluation

    def __call__(self, model: Model) -> dict[str, Any]:
        found = self.evaluation.of(model)
        return {"metric": found.metric, "value": found.pruned, "samples": found.samples, "notice": found.notice}


def _folder(keep: str | Path) -> Path:
    try:
        Path(keep).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--keep {keep}: cannot be created: {error.strerror}") from error
    return Path(keep)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Functions that the recipe names may lie beside it; modules there take no other's place."""
    here = str(folder.resolve())
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
