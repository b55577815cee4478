"""Whose fault an unexpected error is: the model's or the samples', where ONNX Runtime cannot run it on them, else our own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.data.samples import in_multiples, open_samples
from onnxprune.errors import ContractError, InputError, ModelError, OnnxPruneError, OptionError
from onnxprune.ir.model import Model
from onnxprune.runtime.partition import run_each
from onnxprune.runtime.session import first_line, random_feeds
from onnxprune.shapes.candidates import binding_candidates

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.weights import Array

__all__ = ["explained", "refused", "unfit", "unsuitable"]

_TRIALS = 12
"""Sizes of inputs that are tried."""
_BATCHES = 16
"""Batches of samples that are tried."""
_AT_A_TIME = ((16, True), (2, True), (1, True), (16, False))
"""Samples of a batch that are tried: the first axis of an input may count something else, of which a model needs several. And
whether ONNX Runtime may rewrite the graph: it then runs some that the standard forbids.
"""


def explained(
    error: Exception, models: Sequence[Path], samples: Mapping[str, str] | None = None, preprocess: str = ""
) -> OnnxPruneError:
    """The error to report for one that nobody foresaw.

    Args:
        error: what was raised.
        models: the files that were read.
        samples: of the first of them, by the option that names them.
        preprocess: how images become arrays.
    """
    if isinstance(error, MemoryError):
        return ModelError(f"there is not enough memory here; use a machine with more or fewer samples {error}")
    with contextlib.suppress(Exception):  # what is a defect here is one there, too: the first is reported
        for path in models:
            fault = refused(path)
            if fault is not None:
                return fault
        for option, source in (samples or {}).items() if models else ():
            unfit = unsuitable(models[0], option, source, preprocess)
            if unfit is not None:
                return unfit
    if isinstance(error, ContractError):
        return error
    return ContractError(f"{type(error).__name__}: {error}; this is a defect of onnxprune, please report it")


def refused(path: Path) -> ModelError | None:
    """Why a file is no model that runs; ``None`` if it runs, or if nobody knows how to feed it."""
    try:
        model = Model.of(path)
        if any(value.type.WhichOneof("value") != "tensor_type" for value in model.inputs):
            return None
        first = ""
        for sizes in islice(binding_candidates(model), _TRIALS):
            (result,) = run_each(model, [random_feeds(model.inputs, sizes[0], seed=0)])
            if not isinstance(result, Exception):
                return None
            first = first or first_line(result)
    except ModelError as error:
        return error
    return ModelError(f"{path}: does not run: {first}")


def unsuitable(path: Path, option: str, source: str, preprocess: str = "") -> InputError | None:
    """Why a model does not run on samples; ``None`` if it does.

    Args:
        path: of the model.
        option: that names the samples, for the message.
        source: of the samples, as `open_samples` takes it.
        preprocess: how images become arrays.
    """
    try:
        model = Model.of(path)
        return unfit(model, open_samples(source, model.inputs, option=option, preprocess=preprocess or None))
    except InputError as error:
        return error


def unfit(model: Model, samples: Samples) -> OptionError | None:
    """That a model does not run on samples, with the ways out; ``None`` if it does.

    Raises:
        OptionError: there are too few.
    """
    in_multiples(model, samples)
    for size, optimize in _AT_A_TIME:
        batches = list(islice(samples.batches(samples.at_a_time(size)), _BATCHES))
        results = run_each(model, [one.feeds for one in batches], optimize=optimize)
        for result, batch in zip(results, batches, strict=True):
            if isinstance(result, Exception):
                return OptionError(f"{samples.source}: {_told(model, batch.feeds, first_line(result))}")
    return None


def _told(model: Model, feeds: Mapping[str, Array], why: str) -> str:
    """That a model does not run on a batch, and the ways out: its first axis may count no samples, or another one, too."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    name, array = next(iter(feeds.items()))
    form = "x".join(["N", *map(str, array.shape[1:])])
    return (
        f"{model.name} does not run on these samples ({shapes}): {why}; if its first axis counts no samples, say how long it is, "
        f"as --shape {name}={form} with a number for N; else give each sample as an .npz of its own, in a folder"
    )
