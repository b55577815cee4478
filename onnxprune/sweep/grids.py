"""What a user writes for a sweep, expanded: files of models, values of options, every combination of them."""

from __future__ import annotations

import glob
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.errors import OptionError
from onnxprune.ir.folders import model_in
from onnxprune.options.fields import Field, fields_of, meant
from onnxprune.options.targets import number

__all__ = ["Setting", "axes_of", "combined", "models_of", "named_for", "targets_of"]

Setting = Mapping[str, Any]
"""Options of a step by name, as a recipe file has them."""

_RANGE = re.compile(r"([^:,]+):([^:,]+):(\d{1,6})")
_MOST = 100_000
"""Combinations for one model: more than that is a slip."""
_YES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def models_of(named: Iterable[str | Path]) -> list[Path]:
    """The files that paths, folders and patterns stand for, each once, in the order in which they are named.

    Raises:
        OptionError: a pattern fits no file, or a file is not there.
        ModelError: a folder has several models.
    """
    found: dict[Path, None] = {}
    for one in map(str, named):
        if Path(one).exists():
            found[model_in(Path(one))] = None
            continue
        fitting = sorted(glob.glob(one, recursive=True)) if glob.has_magic(one) else []  # noqa: PTH207 - a whole path is a pattern
        if not fitting:
            raise OptionError(f"{one}: {'fits no file' if glob.has_magic(one) else 'there is no such file'}: name models")
        found |= dict.fromkeys(model_in(Path(path)) for path in fitting)
    return list(found)


def named_for(text: str, model: Path) -> str:
    """A path that is written for every model, for one: ``data/{stem}.npz`` of ``models/a.onnx`` is ``data/a.npz``.

    Raises:
        OptionError: something else stands between braces.
    """
    words = {"stem": model.stem, "name": model.name, "folder": str(model.parent)}
    unknown = [word for word in re.findall(r"\{(\w*)\}", text) if word not in words]
    if unknown:
        raise OptionError(f"{text}: {{{unknown[0]}}} stands for nothing: write {{stem}}, {{name}} or {{folder}}")
    return re.sub(r"\{(\w+)\}", lambda found: words[found[1]], text)


def targets_of(texts: Sequence[str]) -> list[str]:
    """Targets one by one: ``macs=0.9:0.5:3`` and ``latency=0.8,0.6`` are five.

    Raises:
        OptionError: a text makes no sense.
    """
    found: dict[str, None] = {}
    for text in texts:
        metric, equals, values = (part.strip() for part in text.partition("="))
        if not equals:
            found[text] = None  # as auto
            continue
        for value in values.split(","):
            found |= dict.fromkeys(f"{metric}={one}" for one in _values(text, value.strip()))
    return list(found)


def _values(text: str, value: str) -> list[str]:
    """A value, or those of a range: ``0.9:0.2:8`` are eight, evenly from 0.9 to 0.2."""
    if ":" not in value:
        return [value]
    told = f"target {text!r}: a range is FIRST:LAST:COUNT, as 0.9:0.2:8"
    found = _RANGE.fullmatch(value)
    if not found:
        raise OptionError(told)
    try:
        first, last, count = float(found[1]), float(found[2]), int(found[3])
    except ValueError as error:
        raise OptionError(told) from error
    if not (math.isfinite(first) and math.isfinite(last)) or count < 1:
        raise OptionError(told)
    steps = max(count - 1, 1)
    return [number(round(first + (last - first) * step / steps, 6)) for step in range(count)]


def axes_of(
    kinds: Sequence[type], targets: Sequence[str], texts: Sequence[str], table: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """The values of each option that a sweep goes through.

    Args:
        kinds: dataclasses that declare the options of the step.
        targets: as users write them.
        texts: other options with their values, as ``criterion=obs,flap``.
        table: the same of a TOML file: a value, or a list of them.

    Raises:
        OptionError: there is no such option, or a value is none of it.
    """
    fields = {key: field for kind in kinds for field in fields_of(kind) for key in field.keys}
    axes: dict[str, list[Any]] = {}
    if targets:
        _known(fields, "target")
        axes["target"] = targets_of(targets)
    for key, value in table.items():
        name = _known(fields, key)
        axes[name] = value if isinstance(value, list) else [value]
    for text in texts:
        key, equals, listed = (part.strip() for part in text.partition("="))
        if not equals or not listed:
            raise OptionError(f"--option {text!r}: write an option with its values, as criterion=obs,flap")
        name = _known(fields, key)
        axes[name] = [_typed(fields[name], text, one.strip()) for one in listed.split(",")]
    for name, values in axes.items():
        if not values:
            raise OptionError(f"--option {name}: has no value")
    return axes


def _known(fields: Mapping[str, Field], key: str) -> str:
    name = key.removeprefix("--").replace("-", "_")
    if name not in fields:
        raise OptionError(f"--option: the step has no option {key!r}{meant(key, fields)}")
    return name


def _typed(field: Field, text: str, value: str) -> Any:
    """A value of the command line as a recipe file has it."""
    told = f"--option {text!r}: {value!r} is not"
    if field.type is bool:
        if value.lower() not in _YES:
            raise OptionError(f"{told} true or false")
        return _YES[value.lower()]
    if field.type in {int, float}:
        try:
            return field.type(value)
        except ValueError as error:
            raise OptionError(f"{told} a number") from error
    return value


def combined(axes: Mapping[str, Sequence[Any]]) -> Iterator[Setting]:
    """Every combination of values; the last option goes through its values first.

    Raises:
        OptionError: there are far too many.
    """
    count = math.prod(map(len, axes.values()))
    if count > _MOST:
        raise OptionError(f"{count} combinations for each model: leave some values out")
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
