"""Functions that a user names: ``package.module:function``."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxPruneError, OptionError

__all__ = ["NAMED", "guarded", "load_named", "source_file", "told", "users_code"]

NAMED = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
"""How a function is named, maybe within a longer text."""
_OURS = str(Path(__file__).resolve().parents[1])


def load_named(name: str, where: str) -> Any:
    """The object ``package.module:name``; modules of the working directory are found, after those that are installed.

    Args:
        name: as the user wrote it.
        where: how messages begin: the option and what was given.

    Raises:
        OptionError: the module cannot be imported, or has no such name.
    """
    module, _, attribute = name.partition(":")
    _find_beside()
    if not _is_known(module.partition(".")[0]):
        raise OptionError(f"{where}: there is no module {module!r}: it must be in the working directory, or installed")
    with users_code(where, f"{module} cannot be imported:"):
        found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ": write package.module:function"
            raise OptionError(f"{where}: {module} has no {attribute}{hint}")
        found = getattr(found, part)
    return found


def _is_known(module: str) -> bool:
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _find_beside() -> None:
    """Let modules of the working directory be found; last, so that none takes the place of an installed one."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def source_file(name: str) -> Path | None:
    """The file that ``package.module:name`` is in, if there is one."""
    _find_beside()
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


@contextlib.contextmanager
def users_code(where: str, failed: str = "raised") -> Iterator[None]:
    """A context for a user's code: it can neither end the program nor write into its output.

    Args:
        where: how messages begin.
        failed: how they go on.

    Raises:
        OptionError: the code raised an error, or asked the program to exit.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except OnnxPruneError:
        raise
    except (Exception, SystemExit) as error:
        raise OptionError(f"{where}: {failed} {told(error)}") from error


def guarded(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """A user's function that runs as `users_code`."""

    @functools.wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        with users_code(where):
            return function(*args, **named)

    return run


def told(error: BaseException) -> str:
    """What an error of the user's says, and the last line of theirs that it came through."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", _OURS))]
    places = [f" at {frame.filename}:{frame.lineno}" for frame in lines if "importlib" not in frame.filename]
    return f"{type(error).__name__}: {error}{places[-1] if places else ''}"
