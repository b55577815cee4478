"""Take defaults out of the inputs of a graph: a weight that callers may override is none that can be changed."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all

__all__ = ["Release"]


@dataclass(frozen=True)
class Release(Pass):
    """Initializers that are inputs, too, are constants and nothing else: callers can no longer give them other values.

    Computes the same for callers that do not. Before version 4 of the file format every initializer is listed as an input, which
    does not make it a default; there is nothing to release.

    Attributes:
        inputs: globs over the names of those that are released; all of them if there are none.
    """

    inputs: tuple[str, ...] = ()

    def run(self, model: Model) -> Model:
        """The model without these inputs.

        Raises:
            OptionError: there are none, or a glob names none; says which there are.
        """
        there = sorted(model.overridable)
        if not there:
            raise OptionError(f"{model.name}: no input has a default: there is nothing to release")
        for glob in self.inputs:
            if not any(fnmatchcase(name, glob) for name in there):
                raise OptionError(f"{model.name}: no input with a default is called {glob!r}; there are {', '.join(there)}")
        gone = {name for name in there if not self.inputs or any(fnmatchcase(name, glob) for glob in self.inputs)}
        released = model.copy()
        replace_all(released.graph.input, [value for value in released.graph.input if value.name not in gone])
        return released
