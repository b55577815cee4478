"""Concrete shapes for every value of a graph, and which of their sizes are dynamic.

Exporters leave batch, sequence and image sizes open and write arithmetic on them into the graph. A *probe* gives every open
size a definite value, infers all shapes without touching a weight, and computes the integer arithmetic that follows from
them. What differs between two probes is dynamic, and so is what is computed from it, even if it is equal in both; see
`onnxprune.shapes.dependence`. Sizes that depend on data (how many boxes pass a threshold) get stand-ins that differ too. Only
where inference has no answer (custom operators, a few standard ones) the model itself is run, once per probe.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.control_flow import walk
from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of, every_node
from onnxprune.ir.weights import Array
from onnxprune.shapes.candidates import binding_candidates, bindings, moved, unmoved
from onnxprune.shapes.dependence import WINDOWS, Dependence
from onnxprune.shapes.inference import Inferred, infer
from onnxprune.shapes.size_arithmetic import small_constants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from onnxprune.ir.types import Shape

__all__ = ["Shapes", "batch_multiple", "probe", "shapes_at", "starved", "takes_one_sample"]

_STAND_INS = (13, 17)
"""Sizes, in the two probes, of what depends on data."""
_MULTIPLES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Batches that are tried where a graph does not take every one: several views of a sample, flips, crops."""
_SECOND_SIZES = 8
"""How many second sizes are tried where the first ones are right."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes and sizes as the probes found them.

    Attributes:
        shapes: the shape of each value in the first probe; ``None`` where it stayed unknown.
        dynamic: for values with a dynamic size, which of their axes have one.
        values: small constants and computed integers, in the first probe.
        moving: for computed values that differ between the probes, their value in the second one.
        open: for computed values that depend on dynamic sizes, which of their entries do, whether or not they moved.
        batch: the size that the first probe gave to a dynamic batch axis; 1 where the batch is static.
    """

    shapes: Mapping[str, Shape | None]
    dynamic: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    moving: Mapping[str, Array] = field(default_factory=dict)
    open: Mapping[str, Array] = field(default_factory=dict)
    batch: int = 1


def starved(model: Model, shapes: Mapping[str, Shape | None]) -> bool:
    """Tell whether sizes are too small for a window of the graph (a kernel, a frame): nothing comes out of it."""
    for node in every_node(model.graph):
        if node.op_type in WINDOWS and not domain_of(node):
            source, out = shapes.get(node.input[0]), shapes.get(node.output[0])
            if source is not None and out is not None and min(out, default=1) <= 0 < min(source, default=1):
                return True
    return False


def probe(model: Model) -> Shapes:
    """Shapes of every value of ``model`` and its bodies; no weight is read unless the model has to be run."""
    constants = small_constants(model)
    probes, first, second = _apart(model, constants, *_probes(model, constants))
    doubted = {name for name, axis in first.assumed if _size(first, name, axis) == _size(second or first, name, axis)}
    if doubted:
        first, second = _twice(model, probes, constants, doubted)  # static and yet not always the same
    shapes, values = first.shapes, first.values
    dynamic, moving = {}, {}
    if second is not None:
        for name, shape in shapes.items():
            other = second.shapes.get(name)
            if shape is None or other is None or len(shape) != len(other):
                shapes[name] = None
            elif shape != other:
                dynamic[name] = tuple(a != b for a, b in zip(shape, other, strict=True))
        for name in values.keys() - constants.keys():
            moved = second.values.get(name)
            if moved is None or not np.array_equal(values[name], moved):
                moving[name] = moved if moved is not None else values[name]
    batch = next((shapes[v.name][0] for v in model.inputs if dynamic.get(v.name, (False,))[0]), 1)  # type: ignore[index]
    if not dynamic:
        return Shapes(shapes, dynamic, values, moving, batch=batch)
    depends = Dependence(shapes, values, dynamic, {name: _differ(values[name], moved) for name, moved in moving.items()})
    depends.follow(step for _, step in walk(model.graph, model.opset))
    return Shapes(shapes, depends.axes, values, moving, depends.entries, batch)


def batch_multiple(model: Model) -> int:
    """Of how many samples a batch is a multiple: the smallest one that does not contradict the graph; 1 where every one does.

    The other sizes are those that are known: from the user, and from samples.
    """
    taken = _taken(model)
    found = next(filter(taken, _MULTIPLES), 1)
    return 1 if found == 1 or taken(found + 1) else found  # one sample alone may be what it does not take


def takes_one_sample(model: Model) -> bool:
    """Tell whether a graph takes one sample at a time, and contradicts any more, though its batch is open."""
    taken = _taken(model)
    return taken(1) and not any(map(taken, _MULTIPLES[1:3]))


def _taken(model: Model) -> Callable[[int], bool]:
    """Tells whether a batch of some number does not contradict a graph."""
    known = replace(model.sizes, fixed={**model.sizes.seen, **model.sizes.fixed})
    constants = small_constants(model)

    def taken(batch: int) -> bool:
        sizes = bindings(model.inputs, (batch, 2 * batch), known)[0]
        return not infer(model, sizes, constants, _STAND_INS[0]).stuck

    return cache(taken)


def _differ(value: Array, moved: Array) -> Array:
    """Which entries of a value moved; all, if nothing tells them apart."""
    if value.shape != moved.shape or np.array_equal(value, moved):
        return np.ones(value.shape, bool)
    return np.asarray(value != moved)


def shapes_at(model: Model, inputs: Mapping[str, Shape]) -> Shapes:
    """Shapes and computed sizes of every value for inputs of these shapes; which of them are dynamic is not found out."""
    found = infer(model, inputs, small_constants(model), _STAND_INS[0])
    return Shapes(found.shapes, values=found.values)


def _probes(model: Model, constants: Mapping[str, Array]) -> tuple[list[dict[str, Shape]], Inferred, Inferred | None]:
    """The first sizes that do not contradict the graph; the plain ones, if all do."""
    found: list[tuple[list[dict[str, Shape]], Inferred, Inferred | None]] = []
    alone = 0
    for probes in binding_candidates(model, pinned=False):
        first = next((entry[1] for entry in found if entry[0][0] == probes[0]), None)
        if first is not None and first.stuck:
            continue  # another second size is no better
        first, second = _twice(model, probes, constants, first=first)
        found.append((probes, first, second))
        if first.stuck or starved(model, first.shapes):
            continue
        if second is None or not second.stuck:
            return probes, first, second
        alone += 1
        if alone == _SECOND_SIZES:
            break
    whole = [entry for entry in found if not entry[1].stuck]
    return next((entry for entry in whole if not starved(model, entry[1].shapes)), (*whole, found[0])[0])


def _apart(
    model: Model, constants: Mapping[str, Array], probes: list[dict[str, Shape]], first: Inferred, second: Inferred | None
) -> tuple[list[dict[str, Shape]], Inferred, Inferred | None]:
    """The probes with other sizes in the second one on open axes that have the same in both, where the graph takes that alone.

    A height that must be what it is leaves the width free: together they may only be tried at sizes that suit both.
    """
    if first.stuck or (second is not None and second.stuck):
        return probes, first, second
    last = probes[-1]
    for key in unmoved(model, probes[0], last):
        for sizes in moved(model, last, key):
            found = infer(model, sizes, constants, _STAND_INS[1])
            if not found.stuck and not starved(model, found.shapes):
                last, second = sizes, found
                break
    return ([probes[0], last], first, second) if last != probes[-1] else (probes, first, second)


def _twice(
    model: Model,
    probes: Sequence[Mapping[str, Shape]],
    constants: Mapping[str, Array],
    doubted: Collection[str] = (),
    *,
    first: Inferred | None = None,
) -> tuple[Inferred, Inferred | None]:
    """The first probe, if it is not known, and the second one if any size is open or depends on data."""
    first = first or infer(model, probes[0], constants, _STAND_INS[0], doubted)
    if len(probes) == 1 and not any(_STAND_INS[0] in (shape or ()) for shape in first.shapes.values()):
        return first, None
    return first, infer(model, probes[-1], constants, _STAND_INS[1], doubted)


def _size(found: Inferred, name: str, axis: int) -> int | None:
    shape = found.shapes.get(name)
    return None if shape is None else shape[axis]
