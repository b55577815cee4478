"""The nodes that decoders are made of, exactly as `onnxprune.sparse.encoding.decoder` writes them, and what they compute.

A node counts only if its operator, its attributes, and the types, ranks and constants that it reads are those of a decoder.
Everything else (a running sum along another axis, a scatter that adds, a division of floats) is the user's, and a runtime's to
compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from onnxprune.ir.weights import Weight

__all__ = ["OPERATORS", "Kind", "Operator", "Step", "attributes_of"]

Arrays = Sequence[Array]
Attributes = Mapping[str, Any]

_INDICES = frozenset({TensorProto.INT32, TensorProto.INT64})
_CODES = frozenset({TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16, TensorProto.INT32})


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a value without computing it.

    Attributes:
        dtype: its ``TensorProto.DataType``.
        rank: the number of its axes.
        filled: whether a ``ConstantOfShape`` made it.
    """

    dtype: int
    rank: int
    filled: bool = False


class Step:
    """A node that reads nothing but constants and what others like it make of them.

    Attributes:
        attributes: of the node.
        inputs: what is known of its inputs.
    """

    def __init__(self, node: NodeProto, inputs: Sequence[Kind], constants: Mapping[str, Weight]) -> None:
        self.attributes, self.inputs = attributes_of(node), inputs
        self._names, self._constants = node.input, constants

    def integers(self, at: int, dtype: int, rank: int) -> Array | None:
        """The integers of an input that is a constant of this type and rank; ``None`` if it is not."""
        weight = self._constants.get(self._names[at])
        if weight is None or weight.dtype != dtype or len(weight.shape) != rank:
            return None
        return weight.array()

    def are(self, dtype: int) -> bool:
        """Say whether all inputs are of a type."""
        return all(kind.dtype == dtype for kind in self.inputs)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of decoders.

    Attributes:
        inputs: how many it reads: the fewest and the most.
        attributes: those it may have, with the values that they may have; ``None`` where the form looks at them.
        form: what the node makes, if it is a decoder's; else ``None``.
        compute: its result, or a list of its results.
    """

    inputs: tuple[int, int]
    attributes: Mapping[str, tuple[Any, ...] | None]
    form: Callable[[Step], Kind | None]
    compute: Callable[[Arrays, Attributes], Any]

    def makes(self, step: Step) -> Kind | None:
        """What the node makes, if it is as decoders have it; else ``None``."""
        fewest, most = self.inputs
        if not fewest <= len(step.inputs) <= most:
            return None
        for name, value in step.attributes.items():
            if name not in self.attributes or ((allowed := self.attributes[name]) is not None and value not in allowed):
                return None
        return self.form(step)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node; tensors as arrays."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
    return found


def _arithmetic(step: Step, dtype: int = TensorProto.INT32) -> Kind | None:
    return Kind(dtype, max(kind.rank for kind in step.inputs)) if step.are(TensorProto.INT32) else None


def _divided(step: Step) -> Kind | None:
    found = _arithmetic(step)
    divisors = next((value for rank in (0, 1) if (value := step.integers(1, TensorProto.INT32, rank)) is not None), None)
    return found if divisors is not None and (divisors > 0).all() else None


def _quotient(inputs: Arrays, _: Attributes) -> Array:
    dividend, divisor = inputs
    quotient: Array = (dividend - np.fmod(dividend, divisor)) // divisor  # towards zero
    return quotient


def _cast(step: Step) -> Kind | None:
    source, to = step.inputs[0], int(step.attributes.get("to", TensorProto.UNDEFINED))
    from_code = source.dtype in _CODES and to == TensorProto.INT32
    to_part = source.dtype == TensorProto.INT32 and to == TensorProto.UINT8
    fill = source.filled and source.dtype == TensorProto.FLOAT and to == TensorProto.BFLOAT16
    widened = source.dtype == TensorProto.FLOAT16 and to == TensorProto.FLOAT
    return Kind(to, source.rank) if from_code or to_part or fill or widened else None


def _concat(step: Step) -> Kind | None:
    first = step.inputs[0]
    alike = all((kind.dtype, kind.rank) == (first.dtype, first.rank) for kind in step.inputs)
    return Kind(first.dtype, first.rank) if alike and first.rank and step.attributes.get("axis") == 0 else None


def _full_form(step: Step) -> Kind | None:
    sizes, value = step.integers(0, TensorProto.INT64, 1), step.attributes.get("value")
    if sizes is None or value is None or value.shape != (1,) or not (sizes > 0).all():
        return None
    return Kind(helper.np_dtype_to_tensor_dtype(value.dtype), len(sizes), filled=True)


def _full(inputs: Arrays, attributes: Attributes) -> Array:
    value = attributes["value"]
    return np.full(tuple(inputs[0]), value[0], value.dtype)


def _running_sum_form(step: Step) -> Kind | None:
    row, axis = step.inputs[0], step.integers(1, TensorProto.INT64, 0)
    ours = axis is not None and axis == 0 and (row.dtype, row.rank) == (TensorProto.INT32, 1)
    return Kind(row.dtype, 1) if ours else None


def _running_sum(inputs: Arrays, attributes: Attributes) -> Array:
    row = inputs[0]
    sums = np.cumsum(row, dtype=row.dtype)
    return sums - row if attributes.get("exclusive") else sums


def _gather(step: Step) -> Kind | None:
    table, places = step.inputs
    return Kind(table.dtype, table.rank - 1 + places.rank) if table.rank and places.dtype in _INDICES else None


def _gather_elements(step: Step) -> Kind | None:
    row, places = step.inputs
    return Kind(row.dtype, 1) if row.rank == places.rank == 1 and places.dtype in _INDICES else None


def _range(step: Step) -> Kind | None:
    start, limit, delta = (step.integers(at, TensorProto.INT32, 0) for at in range(3))
    ours = start is not None and limit is not None and delta is not None and start == 0 and delta == 1 and limit >= 0
    return Kind(TensorProto.INT32, 1) if ours else None


def _reshape(step: Step) -> Kind | None:
    sizes = step.integers(1, TensorProto.INT64, 1)
    ours = sizes is not None and ((sizes > 0) | (sizes == -1)).all() and (sizes == -1).sum() <= 1
    return Kind(step.inputs[0].dtype, len(sizes)) if ours and sizes is not None else None


def _scatter_form(step: Step) -> Kind | None:
    """Along the only axis of a row, or along the last axis of a matrix."""
    data, places, values = step.inputs
    ranks = data.rank == places.rank == values.rank == step.attributes.get("axis", 0) + 1
    ours = ranks and places.dtype in _INDICES and data.dtype == values.dtype
    return Kind(data.dtype, data.rank) if ours else None


def _scatter(inputs: Arrays, _: Attributes) -> Array:
    data, places, values = inputs[0].copy(), inputs[1], inputs[2]
    if places.shape != values.shape:
        raise ValueError("positions and values of a scatter differ in shape")
    data[places if data.ndim == 1 else (np.arange(len(places))[:, None], places)] = values
    return data


def _head(step: Step) -> Kind | None:
    start, end = (step.integers(at, TensorProto.INT64, 1) for at in (1, 2))
    ours = start is not None and end is not None and start.tolist() == [0] and len(end) == 1 and end[0] >= 0
    return Kind(step.inputs[0].dtype, step.inputs[0].rank) if ours and step.inputs[0].rank else None


def _split_form(step: Step) -> Kind | None:
    spelled = step.attributes.get("split") if len(step.inputs) == 1 else step.integers(1, TensorProto.INT64, 1)
    row = step.inputs[0]
    ours = spelled is not None and all(size > 0 for size in spelled) and row.rank
    return Kind(row.dtype, row.rank) if ours else None


def _split(inputs: Arrays, attributes: Attributes) -> list[Array]:
    sizes = inputs[1] if len(inputs) > 1 else attributes["split"]
    if sum(sizes) != len(inputs[0]):
        raise ValueError("the parts of a split are not the whole")
    return np.split(inputs[0], np.cumsum(sizes)[:-1])


def _transpose(step: Step) -> Kind | None:
    source, perm = step.inputs[0], step.attributes.get("perm")
    return Kind(source.dtype, source.rank) if perm is not None and sorted(perm) == list(range(source.rank)) else None


_NONE: dict[str, tuple[Any, ...] | None] = {}
_FIRST: dict[str, tuple[Any, ...] | None] = {"axis": (0,)}

OPERATORS: dict[str, Operator] = {
    "Add": Operator((2, 2), _NONE, _arithmetic, lambda inputs, _: inputs[0] + inputs[1]),
    "Cast": Operator(
        (1, 1),
        {"to": None, "saturate": (1,), "round_mode": (b"up",)},
        _cast,
        lambda inputs, attributes: inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"])),
    ),
    "Concat": Operator((1, 1 << 30), _FIRST, _concat, lambda inputs, _: np.concatenate(inputs)),
    "ConstantOfShape": Operator((1, 1), {"value": None}, _full_form, _full),
    "CumSum": Operator((2, 2), {"exclusive": (0, 1), "reverse": (0,)}, _running_sum_form, _running_sum),
    "Div": Operator((2, 2), _NONE, _divided, _quotient),
    "Gather": Operator((2, 2), _FIRST, _gather, lambda inputs, _: inputs[0][inputs[1]]),
    "GatherElements": Operator((2, 2), _FIRST, _gather_elements, lambda inputs, _: inputs[0][inputs[1]]),
    "Less": Operator((2, 2), _NONE, lambda step: _arithmetic(step, TensorProto.BOOL), lambda inputs, _: inputs[0] < inputs[1]),
    "Mod": Operator((2, 2), {"fmod": (0,)}, _divided, lambda inputs, _: inputs[0] % inputs[1]),
    "Mul": Operator((2, 2), _NONE, _arithmetic, lambda inputs, _: inputs[0] * inputs[1]),
    "Range": Operator((3, 3), _NONE, _range, lambda inputs, _: np.arange(int(inputs[1]), dtype=np.int32)),
    "Reshape": Operator((2, 2), {"allowzero": (0, 1)}, _reshape, lambda inputs, _: inputs[0].reshape(tuple(inputs[1]))),
    "ScatterElements": Operator((3, 3), {"axis": (0, 1), "reduction": (b"none",)}, _scatter_form, _scatter),
    "Slice": Operator((3, 3), _NONE, _head, lambda inputs, _: inputs[0][: int(inputs[2][0])]),
    "Split": Operator((1, 2), {"axis": (0,), "split": None}, _split_form, _split),
    "Transpose": Operator((1, 1), {"perm": None}, _transpose, lambda inputs, a: inputs[0].transpose(a["perm"])),
}
"""The operators of decoders."""
