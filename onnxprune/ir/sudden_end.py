"""The end of a process whose main thread does not answer: what is temporary goes first, and outputs are put in place whole.

A computation in a compiled library cannot be interrupted from Python: nothing unwinds. What such an end must take with it is
therefore told here while it is there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NoReturn

__all__ = ["clean_before_end", "end_now", "whole"]

whole = threading.RLock()
"""Held while the outputs of a command are put in their places: the process does not end in between."""

_cleaners: dict[object, Callable[[], object]] = {}


def clean_before_end(clean: Callable[[], object]) -> Callable[[], None]:
    """Have `end_now` call a function, which may run while its owner does the same; what is returned withdraws it."""
    key = object()
    _cleaners[key] = clean

    def withdraw() -> None:
        _cleaners.pop(key, None)

    return withdraw


def end_now(status: int) -> NoReturn:
    """End the process with a status from any thread, after what is temporary is gone."""
    with whole:
        for clean in reversed(list(_cleaners.values())):
            with contextlib.suppress(Exception):  # it ends, whatever can still be removed
                clean()
        os._exit(status)
