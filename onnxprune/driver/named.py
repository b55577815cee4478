"""Names that users may write globs over: of the nodes and tensors of a file, and of the graph that passes see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from onnxprune.ir.node import every_node
from onnxprune.options.globs import check_globs
from onnxprune.passes import Normalize

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["check_protected", "standing"]


def check_protected(globs: Sequence[str], model: Model) -> None:
    """Nothing happens if each glob of ``--protect`` names a node or a tensor.

    Raises:
        OptionError: one names nothing; says which names come near.
    """
    if globs:
        where = f"node or tensor of {model.name}"
        check_globs(globs, _names(model), "--protect", where, lambda: _names(Normalize().run(model).model))


def standing(globs: Sequence[str], model: Model) -> tuple[str, ...]:
    """The globs that still name something in a model in the making."""
    names = list(_names(model))
    return tuple(glob for glob in globs if any(fnmatchcase(name, glob) for name in names))


def _names(model: Model) -> Iterator[str]:
    """Of nodes, those in bodies too, and of all that they read and write."""
    yield from model.weights
    for node in every_node(model.graph):
        yield node.name
        yield from node.input
        yield from node.output
