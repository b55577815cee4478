"""Checkpoints of training: whole or absent, and only for the run that wrote them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onnxprune.errors import OptionError
from onnxprune.ir.files import replace_file

__all__ = ["Checkpoint"]

_FORMAT = 2


class Checkpoint:
    """A file that a run is kept in, so that it can go on after a kill.

    Attributes:
        path: the file.
        run: what tells the run from others: options, and hashes of the models. Plain data.
        every: seconds between checkpoints within an epoch.
        beside: what else is kept: of a run of several trainings, where it is. Plain data and bytes.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], every: float = 30.0) -> None:
        self.path, self.run, self.every, self.beside = path, dict(run), every, dict[str, Any]()
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is old enough for another."""
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
        """What was saved; ``None`` where there is no file, or nothing but what is kept ``beside`` in it.

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
        except Exception as error:  # torch.load raises what pickle, zipfile and the system do
            raise OptionError(f"--resume {self.path}: is no checkpoint of onnxprune: name another file, or delete it") from error
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
