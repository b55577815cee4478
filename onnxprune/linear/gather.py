"""Sums over calibration samples, as many kinds as are asked for from one pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.session import Session

if TYPE_CHECKING:
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["Sums", "gather"]


class Sums(Protocol):
    """What is added up over batches."""

    @property
    def names(self) -> Collection[str]:
        """The values of the model that are looked at."""

    def add(self, values: Mapping[str, Array]) -> None:
        """Take in one batch of these values, by name."""


def gather(model: Model, feeds: CalibrationFeeds, *sums: Sums) -> None:
    """Run the model over all batches once, and let every kind of sum take in what it looks at; no activation is kept."""
    names = list(dict.fromkeys(name for some in sums for name in some.names))
    if not names:
        return
    session = Session(model, names)
    for results in map_ordered(session.run, feeds, at_once()):
        values = dict(zip(names, results, strict=True))
        for some in sums:
            some.add(values)
