"""Checkpoints of training: whole or absent, and only for the run that wrote them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from onnxprune.errors import OnnxPruneError, OptionError
from onnxprune.ir.outputs import replace_file

__all__ = ["Checkpoint"]

_FORMAT = 2
"""Increased when the contents change, so that an older file is refused and not misread."""


_DAMAGED = "is damaged: delete it to begin anew"


def _is_plain(value: object) -> bool:
    """Tell whether a value is of what options are: a tensor in it would not compare."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else isinstance(value, (str, int, float, NoneType))


class Checkpoint:
    """A file that a run is kept in, so that it can go on after a kill.

    Attributes:
        path: the file.
        run: options and hashes of the models, which tell the run from others. Plain data.
        every: seconds between checkpoints within an epoch.
        beside: kept beside the state of a training: the position of a run that has several. Plain data and bytes.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], every: float = 30.0) -> None:
        self.path, self.run, self.every, self.beside = path, dict(run), every, dict[str, Any]()
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """True if the last checkpoint is at least ``every`` seconds old."""
        return time.monotonic() - self._last >= self.every

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file.

        Raises:
            OutputError: it cannot be written.
        """
        with replace_file(self.path) as file:
            torch.save({"format": _FORMAT, "run": self.run, "beside": self.beside, "state": dict(state)}, file)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved; ``None`` if there is no file, or no training had begun when it was written.

        Raises:
            OptionError: the file is no checkpoint, or one of another run.
        """
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)  # no code is run from it
            known = found["run"] if found["format"] == _FORMAT else None
            state: dict[str, Any] = found["state"]
            beside = found.get("beside", {})
            parts = (state, beside, {} if known is None else known)
            whole = all(isinstance(part, dict) for part in parts) and _is_plain(known)
        except Exception as error:  # torch.load raises the errors of pickle, zipfile and the system
            raise OptionError(f"--resume {self.path}: is no checkpoint of onnxprune: name another file, or delete it") from error
        if not whole:
            raise OptionError(f"--resume {self.path}: {_DAMAGED}")
        if known is None:
            raise OptionError(f"--resume {self.path}: was written by another version: delete it to begin anew")
        for name, value in self.run.items():
            if known.get(name) != value:
                raise OptionError(
                    f"--resume {self.path}: was written with {name} {known.get(name)!r}, not {value!r}: "
                    "repeat the command that wrote it, or delete it to begin anew"
                )
        self.beside = beside
        return state or None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """A context in which what was loaded is taken up.

        Raises:
            OptionError: it is not what a run keeps; the errors that come of it are of many kinds.
        """
        try:
            yield
        except OnnxPruneError:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise OptionError(f"--resume {self.path}: {_DAMAGED}") from error
