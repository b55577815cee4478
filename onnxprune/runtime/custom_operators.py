"""Operators that ONNX Runtime does not have: shared libraries that bring them, for every session that is made meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import OptionError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["custom_operators", "libraries", "register_libraries"]

_libraries: list[str] = []


def libraries() -> tuple[str, ...]:
    """The libraries that sessions get now, as absolute paths."""
    return tuple(_libraries)


@contextlib.contextmanager
def custom_operators(*files: str | Path) -> Iterator[None]:
    """Give every session of ONNX Runtime the operators of these libraries, as long as the context lasts.

    A library exports ``RegisterCustomOps``, as ``SessionOptions.register_custom_ops_library`` asks. The context holds for all
    threads, and for the processes that measure memory. One context within another adds to it.

    Raises:
        OptionError: a file is not there, or ONNX Runtime does not load it.
    """
    before = libraries()
    try:
        for file in files:
            _add(Path(file).resolve(), str(file))
        yield
    finally:
        _libraries[:] = before


def register_libraries(options: onnxruntime.SessionOptions) -> None:
    """Register the libraries with the options of a session."""
    for library in _libraries:
        options.register_custom_ops_library(library)


def _add(path: Path, name: str) -> None:
    """Add a library once, if ONNX Runtime loads it."""
    if not path.is_file():
        raise OptionError(f"--custom-ops {name}: there is no such file")
    if str(path) in _libraries:
        return
    import onnxruntime as ort  # takes 0.1 s; only who has operators of their own needs it here

    try:
        ort.SessionOptions().register_custom_ops_library(str(path))
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        said = str(error).strip().splitlines()[0]
        raise OptionError(f"--custom-ops {name}: ONNX Runtime does not load it as a library of operators: {said}") from error
    _libraries.append(str(path))
