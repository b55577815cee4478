"""How a file came about, in the file: each command adds a step to the metadata of the model that it writes.

The last step is in ``onnxprune.version``, ``.recipe`` (JSON: the command, and its options that are not defaults), ``.source``
(the SHA-256 of the file that was read), ``.plan`` (that of the positions that remain) and ``.producer`` (what made the file that
was read, if not onnxprune); those before it are a list of the same in ``onnxprune.before``. There is no time and no folder in it:
the same command writes the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.ir.unchanged import digest_of
from onnxprune.options.documents import is_deep
from onnxprune.options.fields import Options
from onnxprune.options.version import version

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxprune.ir.model import Model, ModelSource

__all__ = ["Step", "begin", "history", "made", "planned", "recipe_text"]

_US = "onnxprune"
_PREFIX = f"{_US}."
_BEFORE = f"{_PREFIX}before"
_SAMPLES = frozenset({"calib", "eval", "device_table"})
"""Options that name files, of which only the last part of the path is told."""
_ALWAYS, _NEVER = frozenset({"target"}), frozenset({"device"})
"""Options that are told although they are the default, and the other way round: where something ran is no part of it."""
_LONGEST = 1 << 20
"""Characters of a list of steps that are read."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command that made a model.

    Attributes:
        version: of onnxprune.
        recipe: the command, and its options that are not defaults, as JSON.
        source: the SHA-256 of the file that it read, without external data; empty for a model in memory.
        plan: the SHA-256 of the positions that remain; empty where no channels went.
        producer: what made the file that it read, with its version; empty for onnxprune.
    """

    version: str
    recipe: str
    source: str = ""
    plan: str = ""
    producer: str = ""

    @property
    def command(self) -> str:
        """Its name."""
        return str(self._told.get("command", ""))

    @property
    def options(self) -> dict[str, Any]:
        """Those that are not defaults."""
        return {name: value for name, value in self._told.items() if name != "command"}

    @property
    def _told(self) -> Mapping[str, Any]:
        with suppress(ValueError, RecursionError):
            told = json.loads(self.recipe)
            if isinstance(told, dict) and not is_deep(told):
                return told
        return {}

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "command": self.command,
            "options": self.options,
            "version": self.version,
            "source": self.source,
            "plan": self.plan,
            "producer": self.producer,
        }


_NAMES = tuple(field.name for field in dataclasses.fields(Step))


def recipe_text(command: str, *options: Options, only: Collection[str] = (), **more: Any) -> str:
    """A command with its options that are not defaults, as a step has it.

    Args:
        command: its name.
        options: the command's; of files of samples the name alone is told.
        only: the options that count; all if there are none.
        more: options that are no fields.
    """
    told = {name: value for one in options for name, value in _chosen(one).items() if name in (only or (name,))}
    told |= {name: value for name, value in more.items() if value}
    return json.dumps({"command": command, **told}, separators=(",", ":"), sort_keys=True, default=str)


def begin(model: Model, source: ModelSource, recipe: str, steps: tuple[Step, ...] | None = None) -> Model:
    """A model that remembers that a command works on it; all that is made of it does, too.

    Args:
        model: as it was read.
        source: that it was read from.
        recipe: the command, as `recipe_text` spells it.
        steps: that made the source, where the model does not tell.
    """
    digest = digest_of(source) if isinstance(source, str | Path) else ""
    result = model.copy()
    named, numbered = model.proto.producer_name, model.proto.producer_version
    producer = "" if named == _US else f"{named} {numbered}".strip()
    result.proto.producer_name, result.proto.producer_version = _US, version()
    before = history(model.proto) if steps is None else steps
    _write(result.proto, (*before, Step(version(), recipe, digest, producer=producer)))
    return result


def planned(model: Model, digest: str) -> Model:
    """A model that remembers which positions remain."""
    *before, last = history(model.proto)
    result = model.copy()
    _write(result.proto, (*before, dataclasses.replace(last, plan=digest)))
    return result


def history(proto: ModelProto) -> tuple[Step, ...]:
    """The steps that made a model, the first one first; none where nothing is known, or what is written makes no sense."""
    found = {entry.key: entry.value for entry in proto.metadata_props if entry.key.startswith(_PREFIX)}
    last = {name: found.get(_PREFIX + name, "") for name in _NAMES}
    return (*_read(found.get(_BEFORE, "")), Step(**last)) if last["version"] else ()


def made(model: Model) -> dict[str, Any]:
    """The last step as a part of a report: ``made``; empty where there is none."""
    steps = history(model.proto)
    return {"made": steps[-1].to_dict()} if steps else {}


def _chosen(options: Options) -> dict[str, Any]:
    """Options that are not what they are by default, with the names of files alone."""
    default, given = type(options)().to_dict(), options.to_dict()
    told = {name: value for name, value in given.items() if name in _ALWAYS or value != default[name]}
    return {name: Path(told[name]).name if name in _SAMPLES else told[name] for name in told.keys() - _NEVER}


def _write(proto: ModelProto, told: tuple[Step, ...]) -> None:
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith(_PREFIX)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    *before, last = told
    entries = {_PREFIX + name: value for name, value in dataclasses.asdict(last).items()}
    if before:
        steps = [{name: value for name, value in dataclasses.asdict(step).items() if value} for step in before]
        entries[_BEFORE] = json.dumps(steps, separators=(",", ":"))
    for key, value in entries.items():
        if value:
            proto.metadata_props.add(key=key, value=value)


def _read(text: str) -> list[Step]:
    """Steps of a file that anyone may have written."""
    with suppress(ValueError, RecursionError):
        listed = json.loads(text) if len(text) <= _LONGEST else []
        if isinstance(listed, list):
            return [Step(*(str(one.get(name, "")) for name in _NAMES)) for one in listed if isinstance(one, dict)]
    return []
