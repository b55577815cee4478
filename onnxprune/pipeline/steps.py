"""The steps that a recipe file may have: which options each takes, and what it does to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.driver.result import ModelResult
from onnxprune.errors import OptionError
from onnxprune.options import fields
from onnxprune.options.benchmark import BenchmarkRecipe
from onnxprune.options.gates import Gates
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.release import ReleaseRecipe
from onnxprune.options.shared import NOISE
from onnxprune.options.sparsify import EncodeRecipe, SparseRecipe
from onnxprune.options.train import Lesson, Sparse, Training

if TYPE_CHECKING:
    from onnxprune.driver.shared import SharedStages

__all__ = ["STEPS", "Given", "StepInput", "StepKind", "located", "read"]

ORIGINAL, NONE = "original", "none"
"""What a teacher may be, other than a path: the model that the recipe begins with, or nobody."""


Given = Mapping[type, Any]
"""Of each dataclass that a step takes, the one that was written."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """What a step begins with.

    Attributes:
        model: the file that it begins with.
        original: the file that the recipe begins with.
        checkpoint: where training keeps one; ``None`` for nowhere.
        tell: told what goes on.
        shared: what steps of one kind on the same model and samples have in common; ``None`` for nothing.
    """

    model: Path
    original: Path
    checkpoint: Path | None
    tell: Callable[[str], None]
    shared: SharedStages | None = None


Outcome = tuple[ModelResult | None, dict[str, Any]]
"""A model, or none where a step only looks; and what happened, as plain data."""


def _prune(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.prune import prune

    recipe = options[Recipe]
    result = prune(place.model, recipe, agreement=recipe.verify, progress=place.tell, shared=place.shared)
    return result, result.report.to_dict()


def _sparsify(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.sparsify import sparsify

    result = sparsify(place.model, options[SparseRecipe], progress=place.tell)
    return result, result.report.to_dict()


def _finetune(place: StepInput, options: Given) -> Outcome:
    from onnxprune.training.finetune import finetune

    result = finetune(place.model, _material(place, options[Lesson], options[Gates]), options[Training], progress=place.tell)
    return result, result.report


def _train(place: StepInput, options: Given) -> Outcome:
    from onnxprune.training.train import train

    given = (options[Sparse], options[Training])
    result = train(place.model, _material(place, options[Lesson], options[Gates]), *given, progress=place.tell)
    return result, result.report


def _material(place: StepInput, lesson: Lesson, gates: Gates) -> Any:
    from onnxprune.training.inputs import TrainingInputs

    teacher = place.original if lesson.teacher == ORIGINAL else lesson.model
    files = (place.checkpoint, lesson.log or None)
    return TrainingInputs(lesson.data, teacher, lesson.eval or None, lesson.preprocess, *files, gates=gates)


def _quantize(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.quantize import quantize

    result = quantize(place.model, options[QuantRecipe], progress=place.tell)
    return result, result.report.to_dict()


def _optimize(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.judgement import judge_optimized
    from onnxprune.pipeline.optimizing import optimize

    result = optimize(place.model, options[OptimizeRecipe], progress=place.tell)
    found = judge_optimized(place.model, options[OptimizeRecipe], options[Gates], result.compiled, result.report.score)
    return result, {**result.report.to_dict(), "judgement": found.to_dict()}


def _encode(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.encode import encode

    given = options[EncodeRecipe]
    result = encode(
        place.model,
        given.encoding,
        mode=given.mode,
        negative_zeros=given.keep_negative_zeros,
        kernels=given.kernels,
        require_proof=given.require_proof,
        shape=given.shape,
        gates=given.gates,
        progress=place.tell,
    )
    return result, result.to_dict()


def _release(place: StepInput, options: Given) -> Outcome:
    from onnxprune.driver.release import release

    result = release(place.model, options[ReleaseRecipe])
    return result, result.to_dict()


def _benchmark(place: StepInput, options: Given) -> Outcome:
    from onnxprune.latency.benchmark import benchmark

    given = options[BenchmarkRecipe]
    report = benchmark(
        [place.original, place.model],
        labels=["original", "result"],
        providers=given.names,
        batches=given.batches,
        threads=given.threads,
        seconds=given.seconds,
        memory=given.memory,
        shapes=given.shape,
    )
    return None, report.to_dict()


@dataclass(frozen=True, slots=True)
class StepKind:
    """A kind of step.

    Attributes:
        options: dataclasses whose fields are its options.
        run: does it.
        defaults: of options, where they are not those of the dataclass.
    """

    options: tuple[type, ...]
    run: Callable[[StepInput, Given], Outcome]
    defaults: Mapping[str, Any] = field(default_factory=dict)


STEPS: Mapping[str, StepKind] = {
    "prune": StepKind((Recipe,), _prune),
    "sparsify": StepKind((SparseRecipe,), _sparsify),
    "finetune": StepKind((Training, Lesson, Gates), _finetune, {"teacher": ORIGINAL}),
    "train": StepKind((Training, Sparse, Lesson, Gates), _train),
    "quantize": StepKind((QuantRecipe,), _quantize),
    "optimize": StepKind((OptimizeRecipe, Gates), _optimize),
    "encode": StepKind((EncodeRecipe,), _encode),
    "release": StepKind((ReleaseRecipe,), _release),
    "benchmark": StepKind((BenchmarkRecipe,), _benchmark),
}
"""By what a table of a recipe file is called."""

_FILES = frozenset({"calib", "data", "eval", "device_table"})
_MODELS = frozenset({"teacher", "start", "rewind"})


def read(do: str, table: Mapping[str, Any], folder: Path) -> Given:
    """The options of a step, from its table; paths are relative to ``folder``.

    Raises:
        OptionError: no such option, a value of the wrong type or that makes no sense, or a file that is not there.
    """
    kind = STEPS[do]
    if (Lesson in kind.options or (OptimizeRecipe in kind.options and "data" in table)) and find_spec("torch") is None:
        raise OptionError("needs PyTorch: run pip install 'onnxprune[torch]'")
    return fields.read(kind.options, table, defaults=kind.defaults, place=partial(located, folder=folder))


def located(name: str, value: Any, folder: Path) -> Any:
    """A path as seen from the folder of the recipe; what is none stays.

    Raises:
        OptionError: there is no such file.
    """
    if name == "log" and value:
        return str(folder / value)
    model = name in _MODELS and value.endswith(".onnx")
    function = isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value)
    file = name in _FILES and value not in {"", NOISE} and not function
    if not model and not file:
        if name == "teacher" and value not in {ORIGINAL, NONE}:
            raise OptionError(f"teacher = {value!r}: write {ORIGINAL}, {NONE} or an .onnx file")
        return value
    path = folder / value
    if not path.exists():
        raise OptionError(f"{name} = {value!r}: there is no {path}")
    return str(path)
