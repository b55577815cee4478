"""What every command that makes a model returns: the model, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.ir import files
from onnxprune.ir.model import Model

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Written"]


@dataclass(frozen=True)
class Written:
    """A model that was made, and what is known of it.

    Attributes:
        compiled: the model.
    """

    compiled: Model = field(kw_only=True, repr=False)

    @cached_property
    def model(self) -> ModelProto:
        """The model, as a protobuf; one over 2 GB can only be saved."""
        return self.compiled.to_proto()

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model: whole or not at all.

        Raises:
            OutputError: the path cannot be written, or exists and ``force`` is not set.
        """
        files.save(self.compiled, files.check_output(path, force=force))
