"""Sizes of the inputs of a graph that are known before any is tried: from the user, and from samples.

An *open* axis has no number in the file. It has a key: the name of its dimension, or ``input.axis`` where that has none. Axes
with one key have one size. Names that say otherwise are no names: exporters call every open axis ``?``, and people call both
height and width ``dynamic``. What the file calls so loses its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.errors import OptionError
from onnxprune.options.sizes import Sizes, check_shape, read_shape

__all__ = [
    "GivenSizes",
    "believed",
    "given_shapes",
    "given_sizes",
    "is_name",
    "is_open",
    "told_inputs",
    "two_sized",
    "unname",
    "written_sizes",
]


@dataclass(frozen=True, slots=True)
class GivenSizes:
    """Sizes of open axes that are known.

    Attributes:
        fixed: by key, the sizes that the user gave. They are right; others may not be.
        seen: by key, the sizes that a sample has, except along the batch.
        ranks: by input whose rank is open, how many axes it has.
    """

    fixed: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

    def axes(self, value: ValueInfoProto) -> list[int | str]:
        """The axes of an input: a size where the file has one, else a key."""
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            return [f"{value.name}.{axis}" for axis in range(self.ranks.get(value.name, 0))]
        dims = enumerate(tensor.shape.dim)
        return [dim.dim_param or f"{value.name}.{axis}" if is_open(dim) else dim.dim_value for axis, dim in dims]

    def tried(self, shapes: Mapping[str, Sequence[int]]) -> GivenSizes:
        """These sizes, with the ranks that inputs of open rank have in shapes which the model takes."""
        return replace(self, ranks={**{name: len(shape) for name, shape in shapes.items()}, **self.ranks})

    def with_samples(self, samples: Mapping[str, Sizes], inputs: Sequence[ValueInfoProto], source: str) -> GivenSizes:
        """These sizes, and those of samples.

        Args:
            samples: by input, the sizes of one sample; ``None`` along the batch.
            inputs: of the graph.
            source: of the samples, for messages.

        Raises:
            OptionError: a sample has another size than the user gave.
        """
        ranks = {**{name: len(sizes) for name, sizes in samples.items()}, **self.ranks}
        known, seen = replace(self, ranks=ranks), dict(self.seen)
        for value in inputs:
            for axis, (key, size) in enumerate(zip(known.axes(value), samples.get(value.name, ()), strict=False)):
                if not isinstance(key, str) or size is None:
                    continue
                if self.fixed.get(key, size) != size:
                    raise OptionError(
                        f"{source}: axis {axis} of input {value.name!r} has size {size}, and --shape gives it {self.fixed[key]}"
                    )
                seen.setdefault(key, size)
        return replace(known, seen=seen)

    def shapes(self, inputs: Sequence[ValueInfoProto]) -> dict[str, tuple[int, ...]]:
        """The shapes of inputs that something is known of; -1 for an axis that has a size, or that nothing is known of."""
        known = {**self.seen, **self.fixed}
        found = {value.name: tuple(known.get(str(key), -1) for key in self.axes(value)) for value in inputs}
        return {name: shape for name, shape in found.items() if any(size >= 0 for size in shape)}


def is_open(dim: object) -> bool:
    """Tell whether a dimension of an input has no size; Paddle writes -1."""
    return not dim.HasField("dim_value") or dim.dim_value < 0  # type: ignore[attr-defined] # a message of protobuf


def is_name(symbol: str) -> bool:
    """Tell whether a text names a dimension; ``?`` and the like say that nothing is known of it."""
    return any(character.isalnum() for character in symbol)


def two_sized(inputs: Mapping[str, Sequence[int | str | None]], shapes: Mapping[str, Sequence[int | None]]) -> set[str]:
    """The names of dimensions of which one input has two sizes.

    Args:
        inputs: the axes of each: a size, a name, or nothing.
        shapes: sizes of some inputs; ``None`` or a negative one for what is not known.
    """
    found = set()
    for name, shape in shapes.items():
        sizes: dict[str, int] = {}
        for symbol, size in zip(inputs.get(name, ()), shape, strict=False):
            if isinstance(symbol, str) and symbol and size is not None and size >= 0 and sizes.setdefault(symbol, size) != size:
                found.add(symbol)
    return found


def unname(values: Iterable[ValueInfoProto], lost: Callable[[str], bool]) -> None:
    """Take the names away from the dimensions of values for which ``lost`` holds."""
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and lost(dim.dim_param):
                dim.ClearField("dim_param")


def believed(inputs: Sequence[ValueInfoProto], shapes: Mapping[str, Sequence[int | None]]) -> Sequence[ValueInfoProto]:
    """The inputs without the names of dimensions of which one of them has two sizes; the same where there are none.

    Args:
        inputs: of a graph.
        shapes: see `two_sized`.
    """
    lost = two_sized({value.name: GivenSizes().axes(value) for value in inputs}, shapes)
    if not lost:
        return inputs
    copies = [ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    unname(copies, lost.__contains__)
    return copies


def told_inputs(inputs: Sequence[ValueInfoProto]) -> str:
    """Inputs with their axes, as messages spell them: ``image[n, 3, ?, ?]``."""
    return ", ".join(f"{value.name}{_told(value)}" for value in inputs) or "none"


def _told(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return " of any rank"
    return f"[{', '.join(dim.dim_param or '?' if is_open(dim) else str(dim.dim_value) for dim in tensor.shape.dim)}]"


def written_sizes(texts: Sequence[str]) -> dict[str, Sizes]:
    """By what a user wrote sizes for, an input or a dimension, what they are."""
    return dict(map(read_shape, texts))


def given_sizes(texts: Sequence[str], inputs: Sequence[ValueInfoProto]) -> GivenSizes:
    """The sizes that a user wrote, for a graph with these inputs.

    Raises:
        OptionError: a text names no input and no dimension, or contradicts the graph or another text; says what is there.
    """
    check_shape(texts)
    found = GivenSizes()
    for text in texts:
        name, sizes = read_shape(text)
        value = next((value for value in inputs if value.name == name), None)
        named = any(name in found.axes(one) for one in inputs)
        if named and len(sizes) == 1 and (value is None or len(found.axes(value)) != 1):
            found = _with(found, text, {name: sizes[0]})
        elif value is None:
            raise OptionError(f"--shape {text}: there is no input and no dimension {name!r}; inputs are {told_inputs(inputs)}")
        else:
            found = _for_input(found, text, value, sizes)
    return found


def given_shapes(texts: Sequence[str], inputs: Mapping[str, Sequence[int | str | None]]) -> dict[str, tuple[int, ...]]:
    """The shapes that texts give to inputs; -1 for an axis that they say nothing of.

    Args:
        texts: see `given_sizes`.
        inputs: the axes of each: a size, a name, or nothing.

    Raises:
        OptionError: as there.
    """
    values = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, dims) for name, dims in inputs.items()]
    unname(values, two_sized(inputs, written_sizes(texts)).__contains__)
    return given_sizes(texts, values).shapes(values)


def _for_input(found: GivenSizes, text: str, value: ValueInfoProto, sizes: Sizes) -> GivenSizes:
    if not value.type.tensor_type.HasField("shape"):
        found = replace(found, ranks={**found.ranks, value.name: len(sizes)})
    axes = found.axes(value)
    if len(axes) != len(sizes):
        raise OptionError(f"--shape {text}: gives {len(sizes)} sizes, and input {told_inputs([value])} has {len(axes)} axes")
    for axis, (key, size) in enumerate(zip(axes, sizes, strict=True)):
        if isinstance(key, int) and size not in {None, key}:
            raise OptionError(f"--shape {text}: axis {axis} of input {told_inputs([value])} is {key}, not {size}")
    pairs = zip(axes, sizes, strict=True)
    for key, size in pairs:
        if isinstance(key, str):
            found = _with(found, text, {key: size})
    return found


def _with(found: GivenSizes, text: str, sizes: Mapping[str, int | None]) -> GivenSizes:
    for key, size in sizes.items():
        if size is not None and found.fixed.get(key, size) != size:
            raise OptionError(f"--shape {text}: dimension {key!r} is given {found.fixed[key]} and {size}; it has one size")
    return replace(found, fixed={**found.fixed, **{key: size for key, size in sizes.items() if size is not None}})
