"""Functions that a user names: ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from onnxprune.errors import OptionError

__all__ = ["load_named", "told"]

_OURS = str(Path(__file__).resolve().parents[1])


def load_named(name: str, where: str) -> Any:
    """The object ``package.module:name``; modules of the working directory are found, as by ``python -m``.

    Args:
        name: as the user wrote it.
        where: how messages begin: the option and what was given.

    Raises:
        OptionError: the module cannot be imported, or has no such name.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise OptionError(f"{where}: {module} cannot be imported: {told(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise OptionError(f"{where}: {module} has no {attribute}")
        found = getattr(found, part)
    return found


def told(error: Exception) -> str:
    """What an error of the user's says, and the last line of theirs that it came through."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", _OURS))]
    places = [f" at {frame.filename}:{frame.lineno}" for frame in lines if "importlib" not in frame.filename]
    return f"{type(error).__name__}: {error}{places[-1] if places else ''}"
