"""Concrete shapes for every value of a graph, and which of their sizes are dynamic.

Exporters leave batch, sequence and image sizes open and write arithmetic on them into the graph. A *probe* gives every open
size a definite value, infers all shapes without touching a weight, and computes the integer arithmetic that follows from
them. What differs between two probes is dynamic, and so is what is computed from it, even if it is equal in both; see
`onnxprune.shapes.dependence`. Sizes that depend on data (how many boxes pass a threshold) get stand-ins that differ too. Only
where inference has no answer (custom operators, a few standard ones) the model itself is run, once per probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from onnxprune.ir.control_flow import walk
from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of, every_node
from onnxprune.ir.weights import Array
from onnxprune.shapes.dependence import WINDOWS, Dependence
from onnxprune.shapes.inference import Inferred, infer
from onnxprune.shapes.size_arithmetic import SMALL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from onnx import ValueInfoProto

    from onnxprune.ir.types import Shape

__all__ = ["Shapes", "binding_candidates", "bindings", "probe", "shapes_at", "starved"]

_STAND_INS = (13, 17)
"""Sizes, in the two probes, of what depends on data."""
_COMMON = (224, 32, 28, 256, 128, 384, 299, 512)
"""Image sizes and sequence lengths that models are made for."""
_LONGER = (8, 64, 1024)
"""How many times as long sequences are where a window is longer than the plain ones; audio has thousands of samples."""
_LARGEST_IMAGE = 8
"""How many times as wide images become at most."""
_LARGEST = 1 << 22
"""Elements that a longer input has at most."""
_BATCHES = ((4, 8), (8, 16), (16, 32), (6, 12), (10, 20))
"""Batches of graphs that take multiples alone: several views of a sample, flips, crops."""


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


def bindings(inputs: Sequence[ValueInfoProto], batches: tuple[int, int] = (2, 3)) -> list[dict[str, Shape]]:
    """Definite shapes for the graph inputs: one probe, and a second one if any size is open.

    A batch becomes 2 and 3 (or what ``batches`` says), image sizes 64 and 95 pixels, other sizes 16, 24, 32, ... and one less
    than twice as much in the second probe: what a graph computes from a remainder (padding to whole windows) must differ, too.
    Sizes with one name stay equal.
    """
    return next(binding_candidates(inputs, batches))


def binding_candidates(inputs: Sequence[ValueInfoProto], batches: tuple[int, int] = (2, 3)) -> Iterator[list[dict[str, Shape]]]:
    """`bindings`, then others for models that do not take sizes as free as they are declared.

    Some take multiples of a power of two alone. Exporters give sizes that must be equal different names: then those on one axis
    of different inputs become equal; sizes with one name always are. And they leave sizes open for which there is one right
    value: then those that networks are commonly made for are tried, longer ones (for windows that are longer than the first
    sizes), and other batches.
    """
    done: list[list[dict[str, Shape]]] = []
    trials = [
        *(_Trial(batches, alike=alike, less=less) for alike in (False, True) for less in (1, 0)),
        *(_Trial(batches, alike=True, size=size) for size in _COMMON),
        *(_Trial(batches, scale=scale) for scale in _LONGER),
        *(_Trial(more, alike=alike, less=less) for more in _BATCHES for alike, less in ((False, 1), (True, 0))),
    ]
    for trial in trials:
        found = _bound(inputs, trial)
        if trial.scale > 1 and any(math.prod(shape) > _LARGEST for shapes in found for shape in shapes.values()):
            continue
        if found not in done and (not trial.size or found[0] not in [first for first, *_ in done]):
            done.append(found)
            yield found


@dataclass(frozen=True, slots=True)
class _Trial:
    """How open sizes are chosen.

    Attributes:
        batches: sizes of the first axis, in the two probes.
        alike: whether open sizes on one axis are equal.
        less: by how much the second size is less than a multiple of 8.
        size: the one value that open sizes have; 0 for two different ones.
        scale: how many times as long as in the plain trial sequences are.
    """

    batches: tuple[int, int]
    alike: bool = False
    less: int = 1
    size: int = 0
    scale: int = 1


def _bound(inputs: Sequence[ValueInfoProto], trial: _Trial) -> list[dict[str, Shape]]:
    """Shapes for the inputs, once or twice."""
    homes: dict[str, int] = {}
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            name = dim.dim_param or f"{value.name}.{axis}"
            homes[name] = min(axis, homes.get(name, axis))
    probes: list[dict[str, Shape]] = []
    for second in (False, True):
        named: dict[str, int] = {}
        shapes: dict[str, Shape] = {}
        for value in inputs:
            dims = value.type.tensor_type.shape.dim
            shape = []
            for axis, dim in enumerate(dims):
                if dim.HasField("dim_value") and dim.dim_value >= 0:
                    shape.append(dim.dim_value)
                    continue
                name = dim.dim_param or f"{value.name}.{axis}"
                place = homes[name] if trial.alike else axis
                name = f"axis {place}" if trial.alike else name
                if name not in named:
                    plain = _open_size(place, len(dims), len(named), trial.scale, second=second) - trial.less * second
                    named[name] = trial.batches[second] if place == 0 else trial.size or plain
                shape.append(named[name])
            shapes[value.name] = tuple(shape)
        probes.append(shapes)
        if not named:
            break
    return probes


def starved(model: Model, shapes: Mapping[str, Shape | None]) -> bool:
    """Tell whether sizes are too small for a window of the graph (a kernel, a frame): nothing comes out of it."""
    for node in every_node(model.graph):
        if node.op_type in WINDOWS and not domain_of(node):
            source, out = shapes.get(node.input[0]), shapes.get(node.output[0])
            if source is not None and out is not None and min(out, default=1) <= 0 < min(source, default=1):
                return True
    return False


def _open_size(axis: int, rank: int, count: int, scale: int, *, second: bool) -> int:
    if rank >= 4 and axis >= 2:
        return (96 if second else 64) * min(scale, _LARGEST_IMAGE)
    return (16 + 8 * count) * (2 if second else 1) * scale


def probe(model: Model) -> Shapes:
    """Shapes of every value of ``model`` and its bodies; no weight is read unless the model has to be run."""
    constants = small_constants(model)
    probes, first, second = _probes(model, constants)
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
    for probes in binding_candidates(model.inputs):
        first, second = _twice(model, probes, constants)
        if starved(model, first.shapes):
            found.append((probes, first, second))
            continue
        if not first.stuck:
            if second is None or not second.stuck:
                return probes, first, second
            if any(not other.stuck and not starved(model, other.shapes) for _, other, _ in found):
                break  # another second size is no better
        found.append((probes, first, second))
    whole = [entry for entry in found if not entry[1].stuck]
    return next((entry for entry in whole if not starved(model, entry[1].shapes)), (*whole, found[0])[0])


def _twice(
    model: Model, probes: Sequence[Mapping[str, Shape]], constants: Mapping[str, Array], doubted: Collection[str] = ()
) -> tuple[Inferred, Inferred | None]:
    """The first probe, and the second one if any size is open or depends on data."""
    first = infer(model, probes[0], constants, _STAND_INS[0], doubted)
    if len(probes) == 1 and not any(_STAND_INS[0] in (shape or ()) for shape in first.shapes.values()):
        return first, None
    return first, infer(model, probes[-1], constants, _STAND_INS[1], doubted)


def _size(found: Inferred, name: str, axis: int) -> int | None:
    shape = found.shapes.get(name)
    return None if shape is None else shape[axis]


def small_constants(model: Model) -> dict[str, Array]:
    """The values of the constants that rules may look at."""
    return {w.name: w.array() for w in model.weights.values() if w.size <= SMALL and w.dtype != TensorProto.STRING}
