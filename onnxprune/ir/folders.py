"""Folders as Hugging Face and ONNX Runtime GenAI have them: a model, and beside it what says how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxprune.errors import ModelError
from onnxprune.options.documents import is_deep

__all__ = ["CONFIGS", "ModelFolder", "document", "model_in"]

CONFIGS = ("config.json", "genai_config.json")
"""What tells such a folder, and holds sizes of its models."""
_MODEL = "model.onnx"
_INNER = "onnx"
"""A folder in such a folder that may have its models."""
_KEPT = frozenset({".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken", ".vocab", ".py", ".onnx"})
"""Suffixes of configs, tokenizers and models; not of weights for other programs."""
_KINDS = ("model_type", "architectures")
"""A config of Hugging Face has one of these keys; other files may be called ``config.json``, too."""


def model_in(path: Path) -> Path:
    """The model in a folder: ``model.onnx``, else the only one, there or in its folder ``onnx``; any other path is itself.

    Raises:
        ModelError: there are several.
    """
    if not path.is_dir():
        return path
    for folder in (path, path / _INNER):
        models = sorted(folder.glob("*.onnx"))
        if folder / _MODEL in models:
            return folder / _MODEL
        if len(models) > 1:
            names = ", ".join(model.name for model in models)
            raise ModelError(f"{path}: has {len(models)} models: name one of them: {names}")
        if models:
            return models[0]
    return path


@dataclass(frozen=True)
class ModelFolder:
    """A folder, and one of its models.

    Attributes:
        root: where its configs are.
        model: the model; in the folder, or in its folder ``onnx``.
    """

    root: Path
    model: Path

    @classmethod
    def of(cls, model: Path) -> ModelFolder | None:
        """The folder that a model is loaded from; ``None`` for a model that is a file alone."""
        places = [model.parent, *([model.parent.parent] if model.parent.name == _INNER else [])]
        return next((cls(root, model) for root in places if _is_root(root)), None)

    @cached_property
    def variants(self) -> list[Path]:
        """Models that were made of this one, by their names: ``model_quantized.onnx``."""
        return sorted(self.model.parent.glob(f"{self.model.stem}_*.onnx"))

    @cached_property
    def others(self) -> list[Path]:
        """The other models."""
        left = {self.model, *self.variants}
        return [path for path in self._candidates() if path.suffix == ".onnx" and path not in left]

    @cached_property
    def beside(self) -> list[Path]:
        """Configs and tokenizers, in the folder and in folders in it that are no models of their own."""
        return [path for path in self._candidates() if path.suffix != ".onnx"]

    def _candidates(self) -> Iterator[Path]:
        for folder in (self.root, *sorted(path for path in self.root.iterdir() if path.is_dir())):
            own = folder not in {self.root, self.model.parent} and any(folder.glob("*.onnx"))
            if own or folder.name.startswith("."):
                continue
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.name.startswith(".") and (path.suffix in _KEPT or path.stem == "LICENSE"):
                    yield path


def _is_root(folder: Path) -> bool:
    known = document(folder / "config.json")
    return (folder / "genai_config.json").is_file() or any(key in known for key in _KINDS)


def document(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none, or none with keys that can be walked through."""
    try:
        found = json.loads(path.read_text("utf-8"))  # configs may have Infinity, which `load_json` refuses
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and not is_deep(found) else {}
