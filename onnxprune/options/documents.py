"""Text files that people and programs write, TOML and JSON: read whole, or refused in one line."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.errors import OptionError

__all__ = ["absent", "is_deep", "load_json", "load_toml", "strict"]

_LIMIT = 2**28
"""Bytes that no such file has: a device that never ends is not read for ever."""
_NAMED = 3
"""Files beside one that is not there, which are named."""
_LEVELS = 64
"""Levels of a document, at most."""
_DEEP = "its parts lie in each other too deep"


def absent(path: Path, suffix: str) -> str:
    """What is said of a file that is not there: which one may have been meant, else which are beside it.

    Args:
        path: as the user wrote it.
        suffix: of the files that may be meant.
    """
    if not path.parent.exists():
        return f"no such file, and no folder {path.parent}"
    known = sorted(one.name.removesuffix(suffix) for one in path.parent.glob(f"*{suffix}"))
    if near := difflib.get_close_matches(path.stem, known, 1):
        return f"no such file; did you mean {str(path.with_name(near[0] + suffix))!r}?"
    if not known:
        return f"no such file, and no other {suffix} file beside it"
    there = ", ".join(name + suffix for name in known[:_NAMED])
    return f"no such file; beside it are {there}{', ...' if len(known) > _NAMED else ''}"


def load_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        OptionError: no such file, not TOML, or a text in it has a null character, which no path and no name may have.
    """
    try:
        found = tomllib.loads(_text(Path(path)))
    except FileNotFoundError as error:
        raise OptionError(f"{path}: {absent(Path(path), '.toml')}") from error
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise OptionError(f"{path}: not TOML that can be read: {_DEEP}") from error
    except ValueError as error:  # also a number of thousands of digits, and what is not UTF-8
        raise OptionError(f"{path}: not TOML: {error}") from error
    if _has_null(found):
        raise OptionError(f"{path}: a text in it has a null character: write it again")
    return found


def _has_null(value: Any) -> bool:
    """Tell whether a text in a value of TOML has a null character."""
    if isinstance(value, dict):
        return any(map(_has_null, value)) or any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def load_json(path: str | Path) -> Any:
    """The value in a JSON file, in which every number is finite and no name stands twice.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file; says why.
    """
    try:
        found = json.loads(_text(Path(path)), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(_DEEP) from error
    if is_deep(found):
        raise ValueError(_DEEP)
    return found


def is_deep(value: Any) -> bool:
    """Tell whether parts of a document lie in each other deeper than any that is meant: walks through it might not end."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_LEVELS):
        inside = (part.values() if isinstance(part, dict) else part for part in level)
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def strict(value: Any) -> Any:
    """Data that JSON can spell: what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise ValueError(f"it has more than {_LIMIT} bytes")
    return content.decode()


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
