"""Results by the key of their task, models and inputs by what is in them, and files that tasks share.

    results/ab/<key>.json        what came of a task
    models/<sha256>.onnx         a model that a task made; with data beside it a folder of that name
    inputs/<sha256>              a file that tasks read, where workers do not see it
    shared/<family>/<name>       what tasks of one model have in common
    latencies/<sha256>.json      how long a model takes, and the original beside it
    sweep.json                   what was asked for last

Files are the truth. All that is read may have been changed by others: what does not fit its hash is not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from onnxprune.errors import InputError
from onnxprune.ir import files
from onnxprune.ir.caches import user_cache
from onnxprune.options.documents import is_deep, strict
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.places import LocalPlace, place_of

__all__ = ["DONE", "FAILED", "INPUTS", "Outcome", "SharedFiles", "Store"]

DONE, FAILED = "done", "failed"
INPUTS = user_cache() / "sweeps" / "inputs"
"""Where a worker keeps files that it fetched."""
_HEX = re.compile(r"[0-9a-f]{64}")
_MODEL = "model.onnx"


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        key: of the task.
        state: ``done`` or ``failed``.
        model: the file that the task began with, as it was named.
        settings: what differed between the tasks of the model.
        report: what the command prints with ``--json``; empty where it failed.
        sha256: of the model that was made; empty where it failed.
        nbytes: of its files.
        seconds: wall time.
        worker: where it was worked out.
        error: why it failed.
        kind: the name of the exception.
        lasting: whether it would fail again: what was asked for cannot be had.
    """

    key: str
    state: str
    model: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    nbytes: int = 0
    seconds: float = 0.0
    worker: str = ""
    error: str = ""
    kind: str = ""
    lasting: bool = False

    @classmethod
    def read(cls, content: bytes) -> Self | None:
        """The outcome in a file that anyone may have written; ``None`` if it is not one, or not whole."""
        try:
            found = json.loads(content)
            if not isinstance(found, dict) or is_deep(found) or found.pop("whole", "") != _hash(found):
                return None
            sound = found.keys() == _KINDS.keys() and all(isinstance(found[name], kind) for name, kind in _KINDS.items())
        except (ValueError, TypeError, RecursionError):
            return None
        whole = sound and (found["state"] == FAILED or (found["state"] == DONE and _HEX.fullmatch(found["sha256"])))
        return cls(**found) if whole else None

    def written(self) -> bytes:
        """The file of it."""
        told = json.loads(json.dumps(strict(dataclasses.asdict(self)), default=str))
        return json.dumps({**told, "whole": _hash(told)}, allow_nan=False).encode()


_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("key", "state", "model", "sha256", "worker", "error", "kind"), str),
    "settings": dict,
    "report": dict,
    "nbytes": int,
    "seconds": int | float,
    "lasting": bool,
}
"""The types of the fields of an `Outcome`, in its file."""


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Store:
    """The results of sweeps, in one place.

    Attributes:
        place: where.
    """

    def __init__(self, root: str) -> None:
        """Open a place; nothing is written.

        Raises:
            OptionError: what reaches it is not installed, or it cannot be reached.
        """
        self.place = place_of(root)

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that it is; ``None`` where it is elsewhere."""
        return self.place.folder if isinstance(self.place, LocalPlace) else None

    @property
    def root(self) -> str:
        """How another process names it."""
        return self.place.root if self.folder is None else str(self.folder.absolute())

    @property
    def own(self) -> Path:
        """A folder of this machine for what goes with the store and is no part of it: the store itself where it is one."""
        name = hashlib.sha256(self.place.root.encode()).hexdigest()[:16]
        return self.folder or user_cache() / "sweeps" / name

    def asked(self) -> dict[str, Any]:
        """What was asked for last, as `onnxprune.sweep.run.Sweep.to_dict` has it; empty where nothing was."""
        try:
            found = json.loads(self.place.read("sweep.json") or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) and not is_deep(found) else {}

    def result(self, key: str) -> Outcome | None:
        """What came of a task; ``None`` where that is not known."""
        content = self.place.read(_result(key))
        found = None if content is None else Outcome.read(content)
        return found if found and found.key == key else None

    def publish(self, outcome: Outcome, made: Path | None = None) -> None:
        """Keep what came of a task; first the model, then what says that it is there.

        Args:
            outcome: what came of it.
            made: the model; ``None`` where there is none.

        Raises:
            OutputError: it cannot be written.
        """
        if made is not None:
            parts = files.model_files(made)
            names = {part: self._model_name(outcome.sha256, part.name, single=len(parts) == 1) for part in parts}
            for part in reversed(parts):  # the graph last: it names the others
                self.place.put(names[part], part)
        self.place.write(_result(outcome.key), outcome.written())

    def outcomes(self) -> Iterator[Outcome]:
        """Every outcome that is here."""
        for name in self.place.names("results"):
            content = self.place.read(name)
            if content is not None and (found := Outcome.read(content)) is not None and _result(found.key) == name:
                yield found

    def keys(self) -> set[str]:
        """The keys of all results, without a look into them."""
        return {Path(name).stem for name in self.place.names("results") if name.endswith(".json")}

    def models(self) -> set[str]:
        """The SHA-256 of all models that are here."""
        return {name.split("/")[1].removesuffix(".onnx") for name in self.place.names("models")}

    def model_name(self, sha256: str) -> str:
        """The name of the file of a model, in the place."""
        alone = self._model_name(sha256, _MODEL, single=True)
        return alone if self.place.has(alone) else self._model_name(sha256, _MODEL, single=False)

    def fetch_model(self, sha256: str, folder: Path) -> Path | None:
        """A model as a file of this machine: in the store itself, else a copy in a folder.

        ``None`` where it is not there, or not what it was.
        """
        name = self.model_name(sha256)
        path = (self.folder or folder) / name
        if self.folder is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.place.fetch(name, path)
            for part in files.model_files(path)[1:]:
                if part.parent == path.parent:  # nothing is written elsewhere, whatever the model says
                    self.place.fetch(f"models/{sha256}/{part.name}", part)
        try:
            return path if Input.of_model(path).digest == sha256 else None
        except OSError:
            return None

    def put_input(self, given: Input) -> None:
        """Keep files that tasks read.

        Raises:
            OutputError: they cannot be written.
        """
        for name, digest in given.files.items():
            if not self.place.has(f"inputs/{digest}"):
                self.place.put(f"inputs/{digest}", Path(given.text).parent / name)

    def fetch_input(self, given: Input, folder: Path) -> Path:
        """Files that tasks read, as they were named: where they are, else as copies in a folder.

        Raises:
            InputError: they are neither there nor in the store.
        """
        if not given.files or given.is_here():
            return Path(given.text)
        root = folder / given.digest
        for name, digest in given.files.items():
            path = root / name
            if not path.resolve().is_relative_to(root.resolve()):
                raise InputError(f"{given.text}: its data lies outside of its folder, in {name}: copy it there")
            if path.is_file() and files.sha256(path) == digest:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self.place.fetch(f"inputs/{digest}", path) or files.sha256(path) != digest:
                raise InputError(
                    f"{given.text}: is not what it was when the sweep began, and {self.place.root} has no copy of it"
                )
        return root / Path(given.text).name

    def shared(self, family: str) -> SharedFiles:
        """The files that tasks of a family share."""
        return SharedFiles(self, family)

    def latency(self, sha256: str) -> Mapping[str, Any]:
        """How long a model takes, on the machine where that was measured; empty where it was not."""
        content = self.place.read(f"latencies/{sha256}.json")
        try:
            found = json.loads(content or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) and not is_deep(found) else {}

    def put_latency(self, sha256: str, told: Mapping[str, Any]) -> None:
        """Keep how long a model takes.

        Raises:
            OutputError: it cannot be written.
        """
        self.place.write(f"latencies/{sha256}.json", json.dumps(strict(told)).encode())

    @staticmethod
    def _model_name(sha256: str, name: str, *, single: bool) -> str:
        return f"models/{sha256}.onnx" if single else f"models/{sha256}/{name}"


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """Files that tasks of a family share: `onnxprune.driver.shared.Shelf`.

    Attributes:
        store: where they lie.
        family: of the tasks.
    """

    store: Store
    family: str

    def get(self, name: str) -> bytes | None:
        """The file of that name; ``None`` where there is none."""
        return self.store.place.read(f"shared/{self.family}/{name}")

    def put(self, name: str, content: bytes) -> None:
        """Keep a file.

        Raises:
            OutputError: it cannot be written.
        """
        self.store.place.write(f"shared/{self.family}/{name}", content)


def _result(key: str) -> str:
    return f"results/{key[:2]}/{key}.json"
