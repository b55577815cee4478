"""The steps that a recipe file may have: which options each takes, and what it does to a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from onnxprune.driver.result import ModelResult
from onnxprune.errors import OptionError
from onnxprune.options.prune import NOISE, Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Sparse, Training

__all__ = ["KINDS", "Options", "Place", "located", "meant", "read"]

ORIGINAL, NONE = "original", "none"
"""What a teacher may be, other than a path: the model that the recipe begins with, or nobody."""
_TYPES: Mapping[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to train with.

    Attributes:
        data: samples, in any form of `open_samples`; labels by the name ``label``.
        teacher: the model whose outputs are right: ``original``, a path, or ``none``.
        eval: samples that each epoch is judged on; the best is kept.
        preprocess: how the images of folders become arrays.
        log: a folder for TensorBoard.
    """

    data: str = ""
    teacher: str = NONE
    eval: str = ""
    preprocess: str = ""
    log: str = ""

    def __post_init__(self) -> None:
        if not self.data:
            raise OptionError("needs samples to train with: write data = ...")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How zeros are stored; see `onnxprune.driver.encode.encode`."""

    encoding: str = "auto"
    mode: str = "smallest"
    keep_negative_zeros: bool = False

    def __post_init__(self) -> None:
        from onnxprune.sparse.encoding.choose import check_names

        check_names(self.encoding, self.mode)


@dataclass(frozen=True, slots=True)
class Timing:
    """How the original and the model so far are timed; see `onnxprune.latency.benchmark.benchmark`."""

    providers: str = "cpu"
    batch: int = 1
    threads: int = 1
    seconds: float = 2.0
    memory: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} = {getattr(self, name)}: write 1 or more")


Options = Mapping[type, Any]
"""Of each dataclass that a step takes, the one that was written."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands.

    Attributes:
        model: the file that it begins with.
        original: the file that the recipe begins with.
        checkpoint: where training keeps one; ``None`` for nowhere.
        tell: told what goes on.
    """

    model: Path
    original: Path
    checkpoint: Path | None
    tell: Callable[[str], None]


Outcome = tuple[ModelResult | None, dict[str, Any]]
"""A model, or none where a step only looks; and what happened, as plain data."""


def _prune(place: Place, options: Options) -> Outcome:
    from onnxprune.driver.prune import prune

    recipe = options[Recipe]
    result = prune(place.model, recipe, agreement=recipe.verify, progress=place.tell)
    return result, result.report.to_dict()


def _sparsify(place: Place, options: Options) -> Outcome:
    from onnxprune.driver.sparsify import sparsify

    result = sparsify(place.model, options[SparseRecipe], progress=place.tell)
    return result, result.report.to_dict()


def _finetune(place: Place, options: Options) -> Outcome:
    from onnxprune.training.finetune import finetune

    result = finetune(place.model, _material(place, options[Lesson]), options[Training], progress=place.tell)
    return result, result.report


def _train(place: Place, options: Options) -> Outcome:
    from onnxprune.training.train import train

    given = (options[Sparse], options[Training])
    result = train(place.model, _material(place, options[Lesson]), *given, progress=place.tell)
    return result, result.report


def _material(place: Place, lesson: Lesson) -> Any:
    from onnxprune.training.inputs import TrainingInputs

    teacher = {ORIGINAL: place.original, NONE: None}.get(lesson.teacher, lesson.teacher)
    return TrainingInputs(lesson.data, teacher, lesson.eval or None, lesson.preprocess, place.checkpoint, lesson.log or None)


def _quantize(place: Place, options: Options) -> Outcome:
    from onnxprune.driver.quantize import quantize

    result = quantize(place.model, options[QuantRecipe], progress=place.tell)
    return result, result.report.to_dict()


def _encode(place: Place, options: Options) -> Outcome:
    from onnxprune.driver.encode import encode

    given = options[Encoding]
    negative = given.keep_negative_zeros
    result = encode(place.model, given.encoding, mode=given.mode, negative_zeros=negative, progress=place.tell)
    return result, result.to_dict()


def _benchmark(place: Place, options: Options) -> Outcome:
    from onnxprune.latency.benchmark import benchmark

    given = options[Timing]
    report = benchmark(
        [place.original, place.model],
        labels=["original", "result"],
        providers=[name.strip() for name in given.providers.split(",")],
        batches=[given.batch],
        threads=given.threads,
        seconds=given.seconds,
        memory=given.memory,
    )
    return None, report.to_dict()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step.

    Attributes:
        options: dataclasses whose fields are its options.
        run: does it.
        defaults: of options, where they are not those of the dataclass.
        short: other spellings of options: the field, and how a value of one becomes a value of the other.
    """

    options: tuple[type, ...]
    run: Callable[[Place, Options], Outcome]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    short: Mapping[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)

    def names(self) -> dict[str, Any]:
        """Every option with its type."""
        return {one.name: _written(get_type_hints(kind)[one.name]) for kind in self.options for one in fields(kind)}


def _written(hint: Any) -> Any:
    """The type of what is written, where nothing may be."""
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint


def _same(value: Any) -> Any:
    return value


def _not(value: Any) -> Any:
    return not value if isinstance(value, bool) else value


KINDS: Mapping[str, Kind] = {
    "prune": Kind((Recipe,), _prune),
    "sparsify": Kind(
        (SparseRecipe,), _sparsify, short={"layer": ("layers", _same), "sparsity": ("target", lambda value: f"sparsity={value}")}
    ),
    "finetune": Kind((Training, Lesson), _finetune, defaults={"teacher": ORIGINAL}),
    "train": Kind((Training, Sparse, Lesson), _train),
    "quantize": Kind((QuantRecipe,), _quantize, short={"per_tensor": ("per_channel", _not)}),
    "encode": Kind((Encoding,), _encode),
    "benchmark": Kind((Timing,), _benchmark),
}
"""By what a table of a recipe file is called."""

_SAMPLES = frozenset({"calib", "data", "eval"})
_MODELS = frozenset({"teacher", "start", "rewind"})


def read(do: str, table: Mapping[str, Any], folder: Path) -> Options:
    """The options of a step, from its table; paths are relative to ``folder``.

    Raises:
        OptionError: no such option, a value of the wrong type or that makes no sense, or a file that is not there.
    """
    kind = KINDS[do]
    if Lesson in kind.options and find_spec("torch") is None:
        raise OptionError("needs PyTorch: run pip install 'onnxprune[torch]'")
    names = kind.names()
    values: dict[str, Any] = dict(kind.defaults)
    for key, value in table.items():
        name, given = _field(key, value, kind, names)
        if name in values and name not in kind.defaults:
            raise OptionError(f"{key} says again what {name} says: leave one out")
        values[name] = located(name, _typed(key, given, names[name]), folder)
    made = {}
    for options in kind.options:
        own = {one.name: values[one.name] for one in fields(options) if one.name in values}
        made[options] = options(**own)
    return made


def _field(key: str, value: Any, kind: Kind, names: Mapping[str, Any]) -> tuple[str, Any]:
    """The field that a key means, with hyphens or without, and the value that it gets."""
    name = key.replace("-", "_")
    if name in names:
        return name, value
    if name in kind.short:
        name, convert = kind.short[name]
        return name, convert(value)
    if names.get(name.removeprefix("no_")) is bool:
        return name.removeprefix("no_"), _not(value)
    raise OptionError(f"there is no option {key!r}{meant(key, [*names, *kind.short])}")


def meant(word: str, known: list[str]) -> str:
    """A hint at what a misspelt word may have been, or at all there is."""
    near = difflib.get_close_matches(word.replace("-", "_"), known, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _typed(key: str, value: Any, kind: Any) -> Any:
    """A value of TOML as the type of a field."""
    if kind not in _TYPES:
        values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else None
        if values is None or not all(isinstance(item, str) for item in values):
            raise OptionError(f"{key} = {value!r} is not a list of texts")
        return values
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is str and number:  # align = 16
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(f"{key} = {value!r} is not {_TYPES[kind]}")
    return value


def located(name: str, value: Any, folder: Path) -> Any:
    """A path as seen from the folder of the recipe; what is none stays.

    Raises:
        OptionError: there is no such file.
    """
    if name == "log" and value:
        return str(folder / value)
    model = name in _MODELS and value.endswith(".onnx")
    function = isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value)
    samples = name in _SAMPLES and value not in {"", NOISE} and not function
    if not model and not samples:
        if name == "teacher" and value not in {ORIGINAL, NONE}:
            raise OptionError(f"teacher = {value!r}: write {ORIGINAL}, {NONE} or an .onnx file")
        return value
    path = folder / value
    if not path.exists():
        raise OptionError(f"{name} = {value!r}: there is no {path}")
    return str(path)
