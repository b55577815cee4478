"""How long results take, measured after the tasks: one model at a time, nothing else running, in turns with the original."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxprune.errors import InputError
from onnxprune.ir.temporary import temporary_folder
from onnxprune.latency.benchmark import benchmark, machine_of
from onnxprune.runtime.custom_operators import custom_operators
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.store import INPUTS, Store

__all__ = ["machine", "measured", "parts"]

_AT_ONCE = 8
"""Results that take turns with the original: all their sessions are in memory."""


def machine() -> str:
    """What times hold for, as text."""
    return json.dumps({name: value for name, value in machine_of(["cpu"], 1).items() if name != "system"}, sort_keys=True)


def parts(models: Sequence[str]) -> Iterator[Sequence[str]]:
    """Models in parts of which each is timed in one go."""
    for start in range(0, len(models), _AT_ONCE):
        yield models[start : start + _AT_ONCE]


def measured(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How long results take, beside the original; it runs in a worker, alone.

    Args:
        order: the place of the ``store``, the ``model`` that they were made of, the ``results`` by SHA-256, ``seconds`` for each,
            the ``shape`` of inputs as users write it, and ``libraries`` of custom operators.

    Raises:
        ModelError: ONNX Runtime does not run one of them.
        InputError: a file is gone, or the sizes do not fit.
    """
    store = Store(order["store"])
    with temporary_folder() as folder, custom_operators(*order["libraries"]):
        original = store.fetch_input(Input(**order["model"]), INPUTS)
        found = {sha256: store.fetch_model(sha256, folder) for sha256 in order["results"]}
        missing = [sha256 for sha256, path in found.items() if path is None]
        if missing:
            raise InputError(f"{store.place.root}: has no model {missing[0]}: run the sweep again")
        models = [original, *(path for path in found.values() if path is not None)]
        labels = [str(number) for number in range(len(models))]
        report = benchmark(models, labels=labels, seconds=order["seconds"], sessions=1, shapes=order["shape"])
    first, *others = report.rows
    here = machine()
    return [
        {
            "machine": here,
            "ms": row.latency.median_ms,
            "original_ms": first.latency.median_ms,
            "ratio": row.ratio.median if row.ratio else row.latency.median_ms / first.latency.median_ms,
            "quartiles": [row.ratio.q1, row.ratio.q3] if row.ratio else [],
        }
        for row in others
    ]
