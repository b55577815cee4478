"""The inputs of a model that is timed: their shapes at a batch, and random data of these shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OptionError
from onnxprune.ir.sizes import is_name, two_sized
from onnxprune.latency.stopwatch import NUMPY_TYPES, draw

__all__ = ["ResolvedShapes", "SessionInput", "make_feeds", "resolve_shapes", "session_inputs", "to_ask"]

_BATCH_NAME = re.compile(r"n|b|bs|batch.*|.*[_.]batch(_?size)?", re.IGNORECASE)
_SEQUENCE_NAME = re.compile(r"seq|len|token|time|frame|past|step", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"h|w|height|width|.*_(h|w|height|width)|(height|width|image|img)_.*", re.IGNORECASE)
_SEQUENCE_SIZE = 64
_IMAGE_SIZE = 224
_IMAGE_RANK = 4
_COLOURS = 4  # a last axis of at most this many is the channel axis of an NHWC image


@dataclass(frozen=True, slots=True)
class SessionInput:
    """An input of a model: ``type`` as ONNX Runtime writes it, a dimension a size, a symbol or None (unknown)."""

    name: str
    type: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ResolvedShapes:
    """The shapes one candidate is fed with, by input; the batch they amount to; what was guessed or could not be met.

    ``shapes`` is always complete and without symbols; ``guessed`` holds "input: axis=size" for each default taken.
    """

    batch: int
    shapes: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
    guessed: tuple[str, ...]


def session_inputs(session: Any) -> tuple[SessionInput, ...]:
    """Return the inputs of the session's model."""
    return tuple(SessionInput(item.name, item.type, tuple(map(_known, item.shape))) for item in session.get_inputs())


def _known(dim: int | str | None) -> int | str | None:
    return None if isinstance(dim, str) and not is_name(dim) else dim


def _batch_symbols(inputs: Sequence[SessionInput]) -> set[str]:
    """Return the symbols that mean the batch: those named like it, else those that lead an input and no sequence."""
    symbols = {dim for item in inputs for dim in item.dims if isinstance(dim, str)}
    leading = {dim for item in inputs for dim in item.dims[:1] if isinstance(dim, str)}
    named = {symbol for symbol in symbols if _BATCH_NAME.fullmatch(symbol)}
    return named or {symbol for symbol in leading if not _SEQUENCE_NAME.search(symbol)}


def _default(item: SessionInput, axis: int) -> int:
    """Return a plausible size of a dynamic axis; OptionError where none is."""
    symbol = item.dims[axis]
    rank = len(item.dims)
    if isinstance(symbol, str) and _SEQUENCE_NAME.search(symbol):
        return _SEQUENCE_SIZE
    if isinstance(symbol, str) and _IMAGE_NAME.fullmatch(symbol):
        return _IMAGE_SIZE
    if rank < _IMAGE_RANK:
        return _SEQUENCE_SIZE
    last = item.dims[-1]
    channels_last = isinstance(last, int) and last <= _COLOURS and not isinstance(item.dims[1], int)
    if rank == _IMAGE_RANK and axis in ((1, 2) if channels_last else (2, 3)):
        return _IMAGE_SIZE
    raise OptionError(f"input {item.name!r} has shape {list(item.dims)} and axis {axis} has no plausible size: give its shape")


def _asked(item: SessionInput, shape: Sequence[int], batch: int, batch_axes: frozenset[int]) -> dict[int, int]:
    """Return the sizes that ``shape`` gives to dynamic axes of the input, by axis; OptionError if it does not fit."""
    if len(shape) != len(item.dims):
        raise OptionError(f"shape {list(shape)} of input {item.name!r} has rank {len(shape)}, the model says {list(item.dims)}")
    sizes = {}
    for axis, (size, dim) in enumerate(zip(shape, item.dims, strict=True)):
        if size in (-1, dim):
            continue
        if isinstance(dim, int) or size < 1:
            raise OptionError(
                f"shape {list(shape)} of input {item.name!r} does not fit axis {axis} of the model's {list(item.dims)}"
            )
        if axis in batch_axes and size not in (1, batch):
            raise OptionError(f"axis {axis} of input {item.name!r} is the batch: write -1 in its shape and ask for batch {size}")
        if axis not in batch_axes:
            sizes[axis] = size
    return sizes


def _batch_axes(item: SessionInput, symbols: Collection[str]) -> frozenset[int]:
    return frozenset(axis for axis, dim in enumerate(item.dims) if dim in symbols or (dim is None and axis == 0))


def to_ask(inputs: Sequence[SessionInput], shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """What `resolve_shapes` is asked for to get shapes at any batch: sizes of open axes, and -1 for the others."""
    symbols = _batch_symbols(inputs)
    asked = {}
    for item in inputs:
        if len(shapes.get(item.name, ())) == len(item.dims):
            free = [not isinstance(dim, int) and axis not in _batch_axes(item, symbols) for axis, dim in enumerate(item.dims)]
            asked[item.name] = [size if is_free else -1 for is_free, size in zip(free, shapes[item.name], strict=True)]
    return asked


def _given_batch(inputs: Sequence[SessionInput], symbols: Collection[str], shapes: Mapping[str, Sequence[int]]) -> int:
    """The batch that shapes give; 1 where none does."""
    fitting = [item for item in inputs if len(shapes.get(item.name, ())) == len(item.dims)]
    sizes = (shapes[item.name][axis] for item in fitting for axis in _batch_axes(item, symbols))
    return max((size for size in sizes if size > 0), default=1)


def resolve_shapes(inputs: Sequence[SessionInput], batch: int, shapes: Mapping[str, Sequence[int]]) -> ResolvedShapes:
    """Return the shape of every input at this batch.

    The batch sets every axis whose symbol is named like a batch (N, batch, batch_size, ...); where no symbol is, the
    symbolic first axes that are not named like a sequence; and unnamed first axes. ``shapes`` (input name to full
    shape, -1 for "as without it") sets other dynamic axes, and with them every axis of the same symbol, unless it gives axes of
    one input that have this symbol two sizes: then it names nothing. What is left
    gets a default that is noted: 224 for the height and width of an image, else 64.

    A batch that the shapes give is taken where 1 is asked for. A model whose batch is fixed keeps it, with a note.
    OptionError for a shape that does not fit its input, and for an axis that has no plausible default.
    """
    symbols = _batch_symbols(inputs)
    batch = _given_batch(inputs, symbols, shapes) if batch == 1 else batch
    apart = two_sized({item.name: item.dims for item in inputs}, shapes)
    sizes: dict[tuple[str, int], int] = {}  # by input and axis
    given: dict[str, int] = {}  # by symbol
    dynamic = False
    for item in inputs:
        batch_axes = _batch_axes(item, symbols)
        dynamic = dynamic or bool(batch_axes)
        sizes |= {(item.name, axis): batch for axis in batch_axes}
        asked = _asked(item, shapes[item.name], batch, batch_axes) if item.name in shapes else {}
        for axis, size in asked.items():
            sizes[item.name, axis] = size
            symbol = item.dims[axis]
            if isinstance(symbol, str) and symbol not in apart and given.setdefault(symbol, size) != size:
                raise OptionError(f"axis {symbol!r} is given two sizes, {given[symbol]} and in input {item.name!r} {size}")
    guessed = []
    for item in inputs:
        for axis, dim in enumerate(item.dims):
            if (item.name, axis) in sizes:
                continue
            known = dim if isinstance(dim, int) else given.get(dim or "")
            if known is None:
                known = _default(item, axis)
                guessed.append(f"{item.name}: {dim or f'axis {axis}'}={known}")
            sizes[item.name, axis] = known
    notes = [f"sizes guessed, give shapes to set them: {', '.join(guessed)}"] if guessed else []
    if not dynamic:
        fixed = next((item.dims[0] for item in inputs if item.dims and isinstance(item.dims[0], int)), 1)
        if fixed != batch:
            notes.append(f"the model's batch is fixed at {fixed}; {batch} was asked for")
        batch = fixed
    shapes_fed = {item.name: tuple(sizes[item.name, axis] for axis in range(len(item.dims))) for item in inputs}
    return ResolvedShapes(batch, shapes_fed, tuple(notes), tuple(guessed))


def make_feeds(inputs: Sequence[SessionInput], shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Any]:
    """Return random data for every input: normal floats, integers 0 or 1, booleans; OptionError for other types.

    The data depend on the seed and on the input's name, type and shape only, so candidates with the same interface
    get the same. A bfloat16 input gets its bits as uint16.
    """
    for item in inputs:
        if item.type not in NUMPY_TYPES:
            raise OptionError(f"input {item.name!r} is a {item.type}: the benchmark feeds tensors of numbers and booleans only")
    return {item.name: draw(item.name, item.type, shapes[item.name], seed) for item in inputs}
