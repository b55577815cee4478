"""Where a model is written: to a file, or to a folder that is loaded as the one that the original lies in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.driver.model_config import resized
from onnxprune.errors import OutputError
from onnxprune.ir import files
from onnxprune.ir.folders import CONFIGS, ModelFolder, document
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import Outputs
from onnxprune.ir.unchanged import note
from onnxprune.pages.card import card

__all__ = ["Destination", "Saved"]

_CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written.

    Attributes:
        sha256: of the file with the graph.
        notes: what its user should know of the files beside it.
    """

    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a model goes.

    Attributes:
        file: its path.
        home: the folder that is written with it; ``None`` where the model alone is.
    """

    file: Path
    home: _Home | None = None

    @classmethod
    def of(cls, output: str | Path, source: Path, *, inputs: tuple[str | Path, ...] = (), force: bool = False) -> Destination:
        """The place for what is made of a model, checked.

        A folder is written if the original lies in one (`ModelFolder`), and the output is a folder or not called ``.onnx``.

        Args:
            output: what the user named.
            source: the original.
            inputs: other files that are read.
            force: whether files that are there are replaced.

        Raises:
            OutputError: as `onnxprune.ir.files.check_output`, of any file that would be written.
        """
        path, origin = Path(output), ModelFolder.of(source)
        if origin is None or (path.suffix == ".onnx" and not path.is_dir()):
            return cls(files.check_output(path, inputs=(source, *inputs), force=force))
        home = _Home(path, origin)
        file = path / source.relative_to(origin.root)
        if path.is_file():
            raise OutputError(f"{path}: is a file, and a folder is written: name another place, or an .onnx file")
        if not path.is_dir():
            files.check_output(path)
        else:
            read = (source, *inputs, *(place for _, place in home.copies()))
            for place in (file, path / _CARD, *(place for place, _ in home.copies())):
                if place.parent.is_dir():
                    files.check_output(place, inputs=read, force=force)
        return cls(file, home)

    def save(
        self, model: Model, told: Mapping[str, Any] | None = None, *, outputs: Outputs | None = None, command: str = ""
    ) -> Saved:
        """Write a model, and what belongs to it.

        Args:
            model: to write.
            told: what was found, as plain data, for the model card.
            outputs: with which the files appear; at once if there are none.
            command: that made the model, for the card.

        Raises:
            OutputError: the disk is full or the folder not writable.
        """
        if self.home is None:
            return Saved(files.save(model, self.file, outputs))
        with nullcontext(outputs) if outputs else Outputs() as together:
            for folder in dict.fromkeys((self.home.folder, self.file.parent)):
                together.folder(folder)
            notes = self.home.write(model, told or {}, command, together)
            return Saved(files.save(model, self.file, together), notes)


@dataclass(frozen=True, slots=True)
class _Home:
    """A folder that is made of another.

    Attributes:
        folder: that is written.
        origin: that the original lies in.
    """

    folder: Path
    origin: ModelFolder

    def copies(self) -> Iterator[tuple[Path, Path]]:
        """Files that are copied, each with its original; nothing of what was written to a folder in the original's before."""
        inside = self.folder.resolve()
        others = (part for other in self.origin.others for part in files.model_files(other))
        for source in dict.fromkeys((*self.origin.beside, *others)):
            if not source.resolve().is_relative_to(inside):
                yield self.folder / source.relative_to(self.origin.root), source

    def write(self, model: Model, told: Mapping[str, Any], command: str, outputs: Outputs) -> tuple[str, ...]:
        """Write all but the model; what is returned its user should know."""
        configs, notes = self._configs(model)
        if self.origin.variants:
            names = ", ".join(path.name for path in self.origin.variants)
            notes.append(f"left out, because they are made of the original: {names}")
        for place, source in self.copies():
            outputs.folder(place.parent)
            note(source)
            file = outputs.open(place).file
            if place.parent == self.folder and place.name in configs:
                file.write(json.dumps(configs[place.name], indent=2, ensure_ascii=False).encode() + b"\n")
            else:
                with source.open("rb") as content:
                    shutil.copyfileobj(content, file)
        outputs.open(self.folder / _CARD).file.write(self._card(told, command, notes).encode())
        return tuple(notes)

    def _configs(self, model: Model) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The configs that say sizes which changed; where several models share them, they stay."""
        documents = {name: found for name in CONFIGS if (found := document(self.origin.root / name))}
        changed, notes = resized(documents, Model.of(self.origin.model), model)
        if (changed or notes) and self.origin.others:
            return {}, [f"{', '.join(documents)}: sizes are those of the original, which the folder's other models have"]
        return changed, notes

    def _card(self, told: Mapping[str, Any], command: str, notes: list[str]) -> str:
        old, origin = self.origin.root / _CARD, document(self.origin.root / "config.json").get("_name_or_path", "")
        return card(
            told,
            self.folder.resolve().name,
            self.origin.model.name,
            origin=str(origin),
            old=old.read_text("utf-8", errors="replace") if old.is_file() else "",
            command=command,
            notes=notes,
        )
