"""Whose fault an unexpected error is: that of the model, where ONNX Runtime cannot run it either, else onnxprune's own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from onnxprune.errors import ContractError, ModelError, OnnxPruneError
from onnxprune.ir.model import Model
from onnxprune.runtime.partition import run_each
from onnxprune.runtime.session import first_line, random_feeds
from onnxprune.shapes.candidates import binding_candidates

__all__ = ["explained", "refused"]

_TRIALS = 12
"""Sizes of inputs that are tried."""


def explained(error: Exception, models: Iterable[Path]) -> OnnxPruneError:
    """The error to report for one that nobody foresaw.

    Args:
        error: what was raised.
        models: the files that were read.
    """
    if isinstance(error, MemoryError):
        return ModelError(f"there is not enough memory here; use a machine with more or fewer samples {error}")
    for path in models:
        fault = refused(path)
        if fault is not None:
            return fault
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
