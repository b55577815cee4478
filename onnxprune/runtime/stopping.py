"""Ends runs of ONNX Runtime: Python handles no signal before the run that its main thread waits for has returned.

Every run takes the same options, whose flag ONNX Runtime reads before each node, those of bodies included.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["allow_runs", "end_runs", "run_options"]


@cache
def run_options() -> onnxruntime.RunOptions:
    """The options of every run of this process."""
    import onnxruntime as ort  # takes 0.1 s; only what runs a model needs it

    return ort.RunOptions()


def end_runs() -> None:
    """Runs that are under way end with an error, and later ones, too, until `allow_runs`; from any thread."""
    _end(stop=True)


def allow_runs() -> None:
    """Runs go on to their ends again."""
    _end(stop=False)


def _end(*, stop: bool) -> None:
    if run_options.cache_info().currsize:  # there was no run yet, and this thread must not import anything
        run_options().terminate = stop
