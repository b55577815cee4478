"""Commands to go on with, filled in so that they work when they are pasted; and what mends a result that is bad."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.options.shared import NOISE

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["MOST", "TEACH", "Suggestions", "keep_more", "program"]

_SAMPLES = "Give samples, a few hundred inputs without labels: --calib DATA {does}, and measures what is lost"
TEACH = "Train longer with --epochs, slower with --lr, or on more samples"
_REPAIRS = "repairs what is left"

MOST = 3
"""Commands that are suggested."""
_FLOATS = {1, 10, 11}
"""Types of `TensorProto` that noise can stand in for: float32, float16, float64."""


def program() -> str:
    """How this program was called: by its name, or as a module."""
    return "python -m onnxprune" if Path(sys.argv[0]).name == "__main__.py" else "onnxprune"


def keep_more(calib: str, less: str, *, compared: bool = True) -> str:
    """What mends a model that lost too much.

    Args:
        calib: samples that were given.
        less: the option that takes less away.
        compared: whether outputs were compared.
    """
    if not calib:
        return _SAMPLES.format(does=_REPAIRS)
    if not compared:
        return "Outputs were not compared: leave the option out that says so"
    return f"Take less away with {less}, or train what is left with finetune"


class Suggestions:
    """Commands about one model and what was made of it.

    Attributes:
        commands: so far.
    """

    def __init__(self, model: Path, output: Path | None = None, *, calib: str = "", shape: Sequence[str] = ()) -> None:
        """Nothing is suggested yet.

        Args:
            model: the file that was read.
            output: the file that was written.
            calib: samples that were given.
            shape: sizes that were given.
        """
        self._model, self._output, self._calib = str(model), output, "" if calib == NOISE else calib
        self._shape = [part for one in shape for part in ("--shape", one)]
        self.commands: list[str] = []

    def add(self, *words: str | Path, shaped: bool = True) -> Suggestions:
        """Suggest a command, if there is room."""
        if len(self.commands) < MOST:
            self.commands.append(f"{program()} {shlex.join([*map(str, words), *(self._shape if shaped else [])])}")
        return self

    def again(self, *more: str, without: Sequence[str] = ()) -> Suggestions:
        """Suggest the command that is running, with more options, and without some that take a value."""
        words = iter(sys.argv[1:])
        kept: list[str] = []
        for word in words:
            if word in without:
                next(words, None)
            elif word.partition("=")[0] not in without or not word.startswith("--"):
                kept.append(word)
        force = [] if "--force" in kept else ["--force"]
        return self.add(*kept, *more, *force, shaped=False)

    def benchmark(self) -> Suggestions:
        """Suggest to time both."""
        return self.add("benchmark", self._model, self._written)

    def samples(self, model: Model, *, noise: bool = False) -> Suggestions:
        """Suggest how to come by samples; and noise in their place, where the command takes it and the model reads floats."""
        if noise and all(value.type.tensor_type.elem_type in _FLOATS for value in model.inputs):
            self.again("--calib", NOISE, without=("--calib",))
        return self.add("inspect", self._model)

    def quantize(self) -> Suggestions:
        """Suggest int8, where there are samples."""
        if self._calib:
            return self.add("quantize", self._written, "-o", self.fresh("int8"), "--calib", self._calib)
        return self

    def finetune(self) -> Suggestions:
        """Suggest to train, where there are samples and PyTorch."""
        if self._calib and find_spec("torch") is not None:
            files = ("finetune", self._written, "--teacher", self._model, "--data", self._calib)
            return self.add(*files, "-o", self.fresh("tuned"))
        return self

    @property
    def _written(self) -> str:
        return str(self._output or self._model)

    def fresh(self, what: str) -> Path:
        """A file beside the output that is not there yet."""
        place = Path(self._written)
        numbers = ("", *(f"-{number}" for number in range(2, 100)))
        named = (place.with_name(f"{place.stem}-{what}{number}{place.suffix}") for number in numbers)
        return next(path for path in named if not path.exists())
