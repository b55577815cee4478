"""The page ``docs/options.md``: every option of every command, and every name that is registered.

Run ``make options`` after a change of an option; a test compares.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from onnxprune import cli
from onnxprune.cli.derived import COMMANDS, Parameter
from onnxprune.options.registries import ALLOCATIONS, CRITERIA, ENCODINGS, METHODS, PATTERNS, TRAININGS
from onnxprune.options.registry import Registry

__all__ = ["page"]

_HEAD = """# Options

Made by `make options` from the classes in `onnxprune/options`, where each option is declared once. In a recipe file an option is
called as here, without the hyphens before it; in Python it is the field of a dataclass, with underscores. What may be repeated
is a list there. `--no-x` says that `--x`, which is on unless told otherwise, is off; recipes write `x = false`.
"""
_TABLES: tuple[tuple[str, str, Registry[Any]], ...] = (
    ("Criteria", "`--criterion` of `prune`, `plan`, `sensitivity` and `train`", CRITERIA),
    ("Methods of sparsify", "`--method` of `sparsify`", METHODS),
    ("Allocations", "`--allocation` of `sparsify` and `train`", ALLOCATIONS),
    ("Patterns", "`--pattern` of `sparsify` and `train`", PATTERNS),
    ("Encodings", "`--encoding` of `encode` and `sparsify`", ENCODINGS),
    ("Methods of train", "`--method` of `train`", TRAININGS),
)


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *_commands(), *_names()])


def _commands() -> Iterator[str]:
    for name, (function, parameters) in COMMANDS.items():
        if function.__module__.startswith(f"{cli.__name__}."):
            yield f"## {name}\n\n{inspect.getdoc(function)}\n\n| option | default | |\n|---|---|---|"
            yield from map(_row, parameters)
            yield ""


def _row(parameter: Parameter) -> str:
    field = parameter.field
    flags = field.option.metavar if field.option.argument else ", ".join(field.flags.split("/"))
    shown = f"{flags} {field.option.metavar}" if field.option.metavar and not field.option.argument else flags
    default = "must be given" if field.default is MISSING else field.default
    if field.type is bool:
        default = "on" if default else "off"
    range_ = f" In {field.option.range}." if field.option.range else ""
    return f"| `{shown}` | {'' if default in (None, (), '') else default} | {field.help()}{range_} |"


def _names() -> Iterator[str]:
    for title, where, registry in _TABLES:
        yield f"## {title}\n\n{where}.\n\n| name | needs | |\n|---|---|---|"
        for name, entry in registry.items():
            yield f"| `{name}` | {', '.join(sorted(entry.needs))} | {entry.help} |"
        yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
