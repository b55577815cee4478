"""How much memory a run takes at its peak, about, before it is run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from onnxprune.errors import OptionError
from onnxprune.ir.node import subgraphs, values_read
from onnxprune.runtime.memory import left, share
from onnxprune.shapes.candidates import binding_candidates, one_sample
from onnxprune.shapes.probes import shapes_at

if TYPE_CHECKING:
    from onnx import GraphProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["batch_that_fits", "demand_room", "peak_bytes", "runs_that_fit"]

_ELEMENT = 4
"""Bytes of an element, about."""
_PART = 4
"""The part of the memory which a run may take."""


def peak_bytes(model: Model, shapes: Mapping[str, Shape | None]) -> int:
    """Bytes of the activations that are alive together at the worst node: a value goes after its last reader.

    Args:
        model: its nodes are in the order in which they run.
        shapes: of its values; those without one count nothing.
    """
    size = {
        name: _ELEMENT * math.prod(shape) for name, shape in shapes.items() if shape is not None and name not in model.weights
    }
    return _peak(model.graph, {value.name for value in model.inputs}, size)


def _peak(graph: GraphProto, inputs: Collection[str], size: Mapping[str, int]) -> int:
    """Bytes of a graph's inputs, and of what its nodes make, that are alive together; of bodies of a node the largest counts."""
    own = {*inputs, *(name for node in graph.node for name in node.output)}
    last: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        last |= dict.fromkeys(own.intersection((*values_read(node), *node.output)), place)
    last |= dict.fromkeys((output.name for output in graph.output), len(graph.node))
    ends: dict[int, list[str]] = {}
    for name, place in last.items():
        ends.setdefault(place, []).append(name)
    alive = peak = sum(size.get(name, 0) for name in inputs)
    for place, node in enumerate(graph.node):
        inside = max((_peak(body, {value.name for value in body.input}, size) for body in subgraphs(node)), default=0)
        alive += sum(size.get(name, 0) for name in node.output)
        peak = max(peak, alive + inside)
        alive -= sum(size.get(name, 0) for name in ends.get(place, ()))
    return peak


def batch_that_fits(model: Model, most: int) -> int:
    """The number of samples, ``most`` or fewer but at least one, whose run takes a fourth of the memory."""
    return runs_that_fit(model, most)[0]


def runs_that_fit(model: Model, most: int) -> tuple[int, int]:
    """`batch_that_fits`, and the bytes that the run of such a batch takes."""
    one = one_sample(model, next(binding_candidates(model))[0])
    needed = max(peak_bytes(model, shapes_at(model, one).shapes), 1)
    size = max(1, min(most, share(_PART, 2**62) // needed))
    return size, size * needed


def demand_room(model: Model, shapes: Mapping[str, Shape | None], what: str, *, samples: int = 1) -> None:
    """Nothing happens if the run of a model on one sample fits into the memory that is left; the shapes are of some samples.

    Raises:
        OptionError: it does not; says how much it takes.
    """
    needed, have = peak_bytes(model, shapes) // samples, left()
    if have is not None and needed > have:
        raise OptionError(
            f"{model.name}: {what} takes about {needed / 1e9:.2f} GB for one sample, and {have / 1e9:.2f} GB are left: "
            "raise --max-memory, or give smaller inputs"
        )
