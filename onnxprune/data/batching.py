"""Arrays become batches: what the inputs of a model take, and how samples are joined into batches of it.

Every source of samples gives *tables*: arrays by name, whose first axis is the sample. `InputSignature` finds in a table the
arrays that the model's inputs want, checks them, casts them and cuts them into blocks; `assemble` joins blocks into batches.

The batch is the first axis of every input where that axis is open. If no input has an open one, it is the first axis of the
first input that has one, and of the others with the same size there. The other inputs (scalars, fixed tables, masks) are
*whole*: each table has one value for all its samples. An input is whole, too, if the batch would be another axis of some input:
the same size name elsewhere (``adjacency[N, N]``) says that the samples along it are not independent. Each table is then one
sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import helper

from onnxprune.errors import OptionError
from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from onnx import ValueInfoProto

__all__ = ["Batch", "Column", "Held", "InputSignature", "SampleBlock", "Table", "assemble", "take_samples"]

_LARGEST = 1e15
"""Absolute values of samples: with what layers make of them, squares stay below 3e38, the end of float32."""
_MASKED = -1e4
"""Values of a mask of attention where it hides something, and below."""


@dataclass(frozen=True)
class Batch:
    """Samples that a model takes at a time: an array for each input; ``labels`` have one entry per sample on the first axis."""

    feeds: dict[str, Array]
    labels: Array | None
    size: int


class Column(Protocol):
    """An array that need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def blocks(self, rows: int) -> Iterator[Array]:
        """The array in order, ``rows`` entries of the first axis at a time."""

    def whole(self) -> Array:
        """All of it."""


@dataclass(frozen=True, slots=True)
class Held:
    """An array that is in memory, or mapped from a file."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def blocks(self, rows: int) -> Iterator[Array]:
        for start in range(0, len(self.array), rows):
            block = self.array[start : start + rows]
            yield np.array(block) if isinstance(block, np.memmap) else block

    def whole(self) -> Array:
        return np.array(self.array) if isinstance(self.array, np.memmap) else self.array


@dataclass(frozen=True, slots=True)
class Table:
    """Arrays by name, and where they come from, for messages.

    Attributes:
        where: the option and the file, or whatever a person would look at.
        columns: the arrays.
        single: whether arrays may have one axis less than the inputs, and are then one sample.
    """

    where: str
    columns: Mapping[str, Column]
    single: bool = False


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input: its type, its sizes (``None`` where open; ``None`` altogether where even the rank is), whether batched."""

    name: str
    dtype: np.dtype[Any]
    sizes: tuple[int | None, ...] | None
    batched: bool

    @property
    def wanted(self) -> str:
        """The shape of what it takes, for messages."""
        if self.sizes is None:
            return "[samples, ...]"
        sizes = [str("any" if size is None else size) for size in self.sizes]
        return f"[{', '.join(['samples', *sizes[1:]] if self.batched else sizes)}]"

    def takes(self, shape: Sequence[int]) -> bool:
        """Tell whether an array of this shape fits, with any number of samples."""
        if self.sizes is None:
            return len(shape) > 0
        pairs = list(zip(self.sizes, shape, strict=False))[self.batched :]
        return len(shape) == len(self.sizes) and all(size in {None, have} for size, have in pairs)

    def cast(self, array: Array, where: str) -> Array:
        """The array in the input's type, C-contiguous; values must survive it."""
        array = np.asarray(array, order="C")
        if array.dtype == self.dtype:
            return array
        with np.errstate(over="ignore", invalid="ignore"):
            result = array.astype(self.dtype)
        if self.dtype.kind in "iu":
            lost = result != array
        elif self.dtype.kind in "fV":  # numpy takes bfloat16 for a void type
            lost = np.isfinite(array) & ~np.isfinite(result)
        else:
            return result
        if lost.any():
            value = array[lost].flat[0]
            raise OptionError(f"{where}: array {self.name!r} holds {value}, which the input's type, {self.dtype}, cannot hold")
        return result

    def read(self, array: Array, where: str, start: int | None = None) -> Array:
        """The array in the input's type; every value is a finite number.

        Args:
            array: of one sample; with ``start`` of some, the first of which has this index.
            where: it comes from, for messages.
            start: see there.

        Raises:
            OptionError: a value is NaN, infinite or huge (other than in a mask of attention), or the type cannot hold it.
        """
        if not _is_mask(array):
            _check_values(array, f"array {self.name!r}", where, start)
        return self.cast(array, where)


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """Consecutive samples of one table."""

    batched: Mapping[str, Array]
    whole: Mapping[str, Array]
    labels: Array | None
    size: int

    def cut(self, start: int, stop: int) -> SampleBlock:
        if (start, stop) == (0, self.size):
            return self
        labels = None if self.labels is None else self.labels[start:stop]
        return SampleBlock({name: array[start:stop] for name, array in self.batched.items()}, self.whole, labels, stop - start)

    def joins(self, other: SampleBlock) -> bool:
        """Tell whether both can be in one batch: samples of one shape, and the same whole inputs."""
        shapes, others = ({name: array.shape[1:] for name, array in block.batched.items()} for block in (self, other))
        pairs = [(array, other.whole[name]) for name, array in self.whole.items()]
        marks = [None if block.labels is None else block.labels.shape[1:] for block in (self, other)]
        return shapes == others and marks[0] == marks[1] and all(a is b or _equal(a, b) for a, b in pairs)

    def batch(self) -> Batch:
        return Batch({**self.batched, **self.whole}, self.labels, self.size)


def _equal(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")


def _join(blocks: Sequence[SampleBlock]) -> SampleBlock:
    if len(blocks) == 1:
        return blocks[0]
    batched = {name: np.concatenate([block.batched[name] for block in blocks]) for name in blocks[0].batched}
    labels = [block.labels for block in blocks if block.labels is not None]
    size = sum(block.size for block in blocks)
    return SampleBlock(batched, blocks[0].whole, np.concatenate(labels) if labels else None, size)


def take_samples(blocks: Iterable[SampleBlock], limit: int) -> Iterator[SampleBlock]:
    """The blocks of the first ``limit`` samples."""
    for block in blocks:
        yield block.cut(0, min(block.size, limit))
        limit -= block.size
        if limit <= 0:
            return


def assemble(blocks: Iterable[SampleBlock], size: int, multiple: int = 1) -> Iterator[Batch]:
    """Batches of ``size``, in order; an incomplete one is a multiple. Samples that cannot be in one batch begin another one."""
    held: list[SampleBlock] = []
    for block in blocks:
        if held and not held[0].joins(block):
            yield from _incomplete(held, multiple)
            held = []
        held.append(block)
        if sum(part.size for part in held) < size:
            continue
        joined = _join(held)
        whole = joined.size // size * size
        for start in range(0, whole, size):
            yield joined.cut(start, start + size).batch()
        held = [joined.cut(whole, joined.size)] if joined.size > whole else []
    yield from _incomplete(held, multiple)


def _incomplete(held: list[SampleBlock], multiple: int) -> Iterator[Batch]:
    size = sum(part.size for part in held) // multiple * multiple
    if size:
        yield _join(held).cut(0, size).batch()


@dataclass(frozen=True, slots=True)
class InputSignature:
    """The inputs of a model, as samples must fit them.

    Attributes:
        specs: its inputs.
        size: of a static batch; 1 where no input has a batch axis; ``None`` where the batch is dynamic.
        label: the name of the array of labels; an ``s`` at the end may be there.
    """

    specs: tuple[InputSpec, ...]
    size: int | None
    label: str = "label"

    @property
    def label_name(self) -> str:
        """A name for labels that is not an input's."""
        return self.label if all(spec.name != self.label for spec in self.specs) else f"{self.label}s"

    @classmethod
    def of(cls, inputs: Sequence[ValueInfoProto], label: str = "label") -> InputSignature:
        """Read the inputs of a graph.

        Raises:
            OptionError: an input is not a tensor.
        """
        dims = {value.name: _dims(value) for value in inputs}
        batched, size = _batch(dims)
        specs = []
        for value in inputs:
            known = dims[value.name]
            sizes = None if known is None else tuple(None if isinstance(size, str) else size for size in known)
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            specs.append(InputSpec(value.name, dtype, sizes, value.name in batched))
        return cls(tuple(specs), size if batched else 1, label)

    def blocks(self, table: Table, rows: int) -> Iterator[SampleBlock]:
        """A table, checked and cast, ``rows`` samples at a time.

        Raises:
            OptionError: an array is missing, or its shape, type, values or number of samples do not fit.
        """
        count = self.count(table)
        columns, labels = self.chosen(table)
        whole = {s.name: s.read(columns[s.name].whole(), table.where) for s in self.specs if not s.batched}
        batched = [spec for spec in self.specs if spec.batched]
        if not batched or self._is_one(table, columns):
            one = {spec.name: spec.read(columns[spec.name].whole(), table.where)[None] for spec in batched}
            mark = None if labels is None else _one_label(self._mark(labels.whole(), table.where, None))
            yield SampleBlock(one, whole, mark, 1)
            return
        runs = [columns[spec.name].blocks(rows) for spec in batched]
        marks = iter(()) if labels is None else labels.blocks(rows)
        for start in range(0, count, rows):
            arrays = {spec.name: spec.read(next(run), table.where, start) for spec, run in zip(batched, runs, strict=True)}
            mark = next(marks, None)
            found = None if mark is None else _integers(self._mark(mark, table.where, start))
            yield SampleBlock(arrays, whole, found, min(rows, count - start))

    def _mark(self, labels: Array, where: str, start: int | None) -> Array:
        """Labels, which must be numbers; in the byte order of this machine, because PyTorch takes no other."""
        if labels.dtype.kind not in "biuf":
            raise OptionError(f"{where}: array {self.label_name!r} is of type {labels.dtype}: labels are numbers")
        _check_values(labels, f"array {self.label_name!r}", where, start)
        return labels.astype(labels.dtype.newbyteorder("="), copy=False)

    def labelled(self, table: Table) -> bool:
        """Tell whether a table has labels."""
        return self.chosen(table)[1] is not None

    def unscaled(self, table: Table) -> list[str]:
        """The inputs in floating point that a table has bytes for, as images are stored."""
        columns, _ = self.chosen(table)
        return [spec.name for spec in self.specs if spec.dtype.kind in "fV" and columns[spec.name].dtype == np.uint8]

    def count(self, table: Table) -> int:
        """Count the samples of a table; only names, shapes and types are looked at.

        Raises:
            OptionError: as `blocks`, except for values.
        """
        columns, labels = self.chosen(table)
        one = self._is_one(table, columns)
        for spec in self.specs:
            _check(spec, columns[spec.name], table.where, lifted=one and spec.batched)
        counted: dict[str, Column] = {spec.name: columns[spec.name] for spec in self.specs if spec.batched}
        if one or not counted:
            return 1
        if labels is not None:
            counted[self.label] = labels
        (name, size), *rest = ((name, (column.shape or (0,))[0]) for name, column in counted.items())
        for other, have in rest:
            if have != size:
                raise OptionError(f"{table.where}: array {name!r} has {size} samples, array {other!r} has {have}: give as many")
        return size

    def _is_one(self, table: Table, columns: Mapping[str, Column]) -> bool:
        """Tell whether the arrays are one sample, without the batch axis."""
        ranks = [(spec.name, len(spec.sizes)) for spec in self.specs if spec.batched and spec.sizes is not None]
        return table.single and bool(ranks) and all(len(columns[name].shape) == rank - 1 for name, rank in ranks)

    def chosen(self, table: Table) -> tuple[dict[str, Column], Column | None]:
        """The array of each input, and the labels."""
        names = {spec.name for spec in self.specs}
        labels = [name for name in (self.label, f"{self.label}s") if name in table.columns and name not in names]
        rest = [name for name in table.columns if name not in labels]
        found = {spec.name: spec.name for spec in self.specs}
        if len(names) == 1 and len(rest) == 1:
            found = dict.fromkeys(names, rest[0])
        for name in found.values():
            if name not in table.columns:
                has = ", ".join(table.columns) or "none"
                raise OptionError(f"{table.where}: has no array for input {name!r}; it has {has}")
        return {name: table.columns[given] for name, given in found.items()}, table.columns[labels[0]] if labels else None


def _dims(value: ValueInfoProto) -> list[int | str] | None:
    """Sizes of an input: numbers, the names of open ones, or nothing where the rank is open."""
    if not value.type.HasField("tensor_type"):
        raise OptionError(f"input {value.name!r} is not a tensor: samples cannot be made for it")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param for dim in tensor.shape.dim]


def _batch(dims: Mapping[str, list[int | str] | None]) -> tuple[set[str], int | None]:
    """The inputs whose first axis is the batch, and its size where that is static."""
    starts = {name: sizes[0] if sizes else "" for name, sizes in dims.items() if sizes != []}
    elsewhere = {size for sizes in dims.values() for size in (sizes or [])[1:] if size}
    moving = {name for name, start in starts.items() if isinstance(start, str)}
    if moving:
        return {name for name in moving if starts[name] not in elsewhere}, None
    size = next((start for start in starts.values() if isinstance(start, int) and start), None)
    return {name for name, start in starts.items() if start == size}, size


def _check(spec: InputSpec, column: Column, where: str, *, lifted: bool) -> None:
    shape = (0, *column.shape) if lifted else column.shape
    if not spec.takes(shape):
        raise OptionError(f"{where}: array {spec.name!r} has shape {list(column.shape)}, the input takes {spec.wanted}")
    if not np.can_cast(column.dtype, spec.dtype, "same_kind"):
        raise OptionError(f"{where}: array {spec.name!r} is of type {column.dtype}, the input takes {spec.dtype}")


def _is_mask(array: Array) -> bool:
    """Tell whether an array is added to scores of attention: it holds zeros, and large negative or infinite numbers."""
    return "float" in array.dtype.name and bool(((array == 0) | (array <= _MASKED)).all())


def _check_values(array: Array, what: str, where: str, start: int | None) -> None:
    """Raise where a value is NaN, infinite or so large that squares of it overflow: one would spoil every statistic."""
    if "float" not in array.dtype.name:
        return
    with np.errstate(over="ignore"):  # in float16 the bound is infinite
        usable = np.isfinite(array) & (np.abs(array) <= _LARGEST)
    if usable.all():
        return
    at = np.argwhere(~usable)[0]
    one = "" if start is None else f" at sample {start + int(at[0])}"
    value = array[tuple(at)]
    needed = f"numbers below {_LARGEST:g}" if np.isfinite(value) else "finite numbers"
    raise OptionError(f"{where}: {what} holds {value}{one}: samples must be {needed}: leave it out, or mend it")


def _integers(labels: Array | None) -> Array | None:
    """Class indices are of one type, whatever they were stored as."""
    return labels if labels is None or labels.dtype.kind not in "iu" else labels.astype(np.int64)


def _one_label(label: Array) -> Array | None:
    """The label of a single sample, with the axis of samples."""
    return _integers(label if label.shape == (1,) else label[None])
