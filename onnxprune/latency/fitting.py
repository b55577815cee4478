"""Sizes for models that do not run with plain ones: those that their graphs ask for, as for windows of a fixed length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.latency.inputs import ResolvedShapes, SessionInput, resolve_shapes, to_ask
from onnxprune.shapes.candidates import binding_candidates

__all__ = ["fitting_shapes"]

_TRIALS = 24
"""Sizes that are tried, at most."""


def fitting_shapes(
    source: str | bytes, inputs: Sequence[SessionInput], batch: int, asked: Mapping[str, Sequence[int]]
) -> Iterator[ResolvedShapes]:
    """Shapes of every input at this batch, in the order in which they should be tried.

    Where one sample is asked for, other batches are tried, too: what looks like a batch may be the frames of a recording.

    Args:
        source: the model: a path, or its bytes.
        inputs: as a session tells of them.
        batch: as for `resolve_shapes`.
        asked: shapes that the user gave, by input.
    """
    for found, *_ in islice(binding_candidates(Model.of(source)), _TRIALS):
        for sizes in (to_ask(inputs, found), found)[: 2 if batch == 1 else 1]:
            try:
                resolved = resolve_shapes(inputs, batch, {**sizes, **asked})
            except OptionError:  # sizes that the user gave do not go with these
                continue
            fed = ", ".join(f"{name} {list(shape)}" for name, shape in resolved.shapes.items())
            yield dataclasses.replace(resolved, notes=(*resolved.notes, f"sizes that the model takes: {fed}"))
