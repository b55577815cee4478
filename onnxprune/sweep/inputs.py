"""Files that a task reads, known by what is in them: a model with its data, samples in a file or a folder, a user's function."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from onnxprune.errors import ChangedError, OptionError
from onnxprune.ir import files
from onnxprune.options.functions import NAMED, source_file
from onnxprune.options.shared import NOISE

__all__ = ["Input"]


@dataclass(frozen=True, slots=True)
class Input:
    """What an option names.

    Attributes:
        text: how it was named: a path, ``module:function``, or noise.
        files: the SHA-256 of each file, by its name in the folder of the first; none where a function or noise is named.
        digest: of all of it.
        nbytes: of the files.
    """

    text: str
    files: Mapping[str, str]
    digest: str
    nbytes: int = 0

    @classmethod
    def of_model(cls, path: Path) -> Self:
        """A model, with the files that its weights are in.

        Raises:
            OSError: one cannot be read.
        """
        return cls._of(path, {os.path.relpath(part, path.parent): part for part in files.model_files(path)})

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """A file.

        Raises:
            OSError: it cannot be read.
        """
        return cls._of(path, {path.name: path})

    @classmethod
    def of_samples(cls, text: str, option: str) -> Self:
        """Samples as a user names them.

        Raises:
            OptionError: they are not there.
        """
        path = Path(text)
        if text == NOISE:
            return cls(text, {}, NOISE)
        if path.is_dir():
            return cls._of(path, {str(file.relative_to(path.parent)): file for file in sorted(path.rglob("*")) if file.is_file()})
        if path.is_file():
            return cls.of_file(path)
        if NAMED.fullmatch(text):
            source = source_file(text)
            parts = sorted(source.parent.glob("*.py")) if source else []
            return cls(text, {}, _digest([text, [(part.name, _sha256(part)) for part in parts]]))
        raise OptionError(f"{option} {text}: there is no such file")

    @classmethod
    def _of(cls, path: Path, parts: Mapping[str, Path]) -> Self:
        found = {name: _sha256(part) for name, part in parts.items()}
        nbytes = sum(part.stat().st_size for part in parts.values())
        return cls(str(path), found, next(iter(found.values())) if len(found) == 1 else _digest(sorted(found.items())), nbytes)

    def is_here(self) -> bool:
        """Tell whether the files lie where they were named, unchanged."""
        root = Path(self.text).parent
        try:
            return all(_sha256(root / name) == digest for name, digest in self.files.items())
        except OSError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"text": self.text, "files": dict(self.files), "digest": self.digest, "nbytes": self.nbytes}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Of a file; read once in each of its states.

    Raises:
        ChangedError: it changed while it was read.
    """
    before = _state(path)
    found = _read(path, before)
    if _state(path) != before:
        raise ChangedError(f"{path}: was changed while it was read: run the command again")
    return found


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1 << 16)
def _read(path: Path, state: tuple[int, int, int]) -> str:
    return files.sha256(path)
