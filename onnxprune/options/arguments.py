"""Messages for programs: the command line's ``--max-drop 1%`` is Python's ``max_drop=1%``."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping

from onnxprune.options.fields import Field, Options, fields_of

__all__ = ["as_arguments"]

_MODULES = ("benchmark", "commands", "engines", "optimize", "prune", "quantize", "release", "sparsify", "sweep", "train")
"""That declare options."""
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])(?:[ =]([^\s,;:)]+))?")
"""A flag, and the word after it."""


def as_arguments(text: str) -> str:
    """A message that spells options as arguments.

    >>> as_arguments("add --calib DATA, or use --criterion l2; pass --force to replace it, --no-verify to write it all the same")
    'add calib=DATA, or use criterion=l2; pass force=True to replace it, verify=False to write it all the same'
    """
    return _FLAG.sub(_argument, text) if "--" in text else text


def _argument(found: re.Match[str]) -> str:
    flag, word = found[1], found[2] or ""
    name, field, value = _known().get(flag, (flag.replace("-", "_"), None, None))
    if value is not None:
        return f"{name}={value}{f' {word}' if word else ''}"
    if not word:
        return name
    given = not word.isalpha() or word.isupper() or (field is not None and word in field.option.known)
    return f"{name}={word}" if given else f"{name} {word}"


@functools.cache
def _known() -> Mapping[str, tuple[str, Field, bool | None]]:
    """By flag: the argument's name, the option, and what the flag says where it takes no value."""
    found: dict[str, tuple[str, Field, bool | None]] = {}
    for module in _MODULES:
        importlib.import_module(f"onnxprune.options.{module}")
    for kind in _kinds(Options):
        for field in fields_of(kind):
            for number, flag in enumerate(field.flags.split("/")):
                value = None if field.type is not bool else number == 0
                found.setdefault(flag.lstrip("-"), (field.name, field, value))
    return found


def _kinds(kind: type) -> Iterator[type]:
    below: list[type] = kind.__subclasses__()
    for one in below:
        if hasattr(one, "__dataclass_fields__"):
            yield one
        yield from _kinds(one)
