"""Writes decoders: nodes of standard operators between compact constants and the weights that the graph reads.

Every chain holds from operator set 11 on, computes from constants alone, and makes values whose sizes are known beforehand,
which ONNX Runtime asks for before it folds (``NonZero`` and ``Compress`` do not).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir.weights import Array, Weight

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.sparse.encoding.flat import Flat

__all__ = ["LAST", "OPSET", "Chain", "pack", "packed_bytes"]

LAST = "decode"
"""The beginning of the names of nodes that make weights; a number follows. The nodes behind such a one read the weight."""

OPSET = 11
"""The oldest operator set with all operators of the decoders: ``CumSum``, ``Range``, ``ScatterElements``."""


def _planes(width: int) -> list[tuple[int, int]]:
    """Codes as sums of parts of 8, 4, 2 and 1 bits, which fill bytes: the bits of each part, and where it begins."""
    found, start = [], 0
    for bits in (8, 4, 2, 1):
        if width & bits:
            found.append((bits, start))
            start += bits
    return found


def packed_bytes(count: int, width: int) -> int:
    """Bytes of packed codes."""
    return sum(-(-count * bits // 8) for bits, _ in _planes(width))


def pack(codes: Array, width: int) -> list[Array]:
    """Codes of up to 8 bits, part by part: parts of all codes one after the other, low bits first. Each [bytes] uint8"""
    codes = codes.astype(np.uint8)
    packed = []
    for bits, start in _planes(width):
        part = codes >> np.uint8(start)
        planes = (part[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
        packed.append(part if bits == 8 else np.packbits(planes.reshape(-1), bitorder="little"))
    return packed


class Chain:
    """Collects the decoders of a model.

    Attributes:
        nodes: in topological order.
        weights: the constants that they read.
    """

    def __init__(self, model: Model) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Weight] = {}
        self._model = model
        self._shared: dict[tuple[Any, ...], str] = {}
        self._tables: dict[tuple[int, int], str] = {}

    def payload(self, array: Array) -> str:
        """A constant of its own; its name."""
        name = self._name()
        self.weights[name] = Weight(name, None, array)
        return name

    def constant(self, value: Any, dtype: Any = np.int32) -> str:
        """A small constant, one for all who ask for the same."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.payload(array)
        return self._shared[key]

    def sizes(self, *value: int) -> str:
        """A shape, or another vector of sizes."""
        return self.constant(value, np.int64)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; the name of that."""
        output = self._name()
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def finish(self, weight: str) -> None:
        """The last node makes a weight."""
        self.nodes[-1].output[0] = weight
        self.nodes[-1].name = f"{LAST}{len(self.nodes)}"

    def cast(self, value: str, dtype: int = TensorProto.INT32) -> str:
        return self.node("Cast", value, to=dtype)

    def summed(self, value: str, *, exclusive: bool = False) -> str:
        """Running sums of a row, of the element itself too unless ``exclusive``."""
        attributes: dict[str, Any] = {"exclusive": 1} if exclusive else {}
        return self.node("CumSum", value, self.constant(0, np.int64), **attributes)

    def reshaped(self, value: str, *shape: int) -> str:
        return self.node("Reshape", value, self.sizes(*shape))

    def head(self, value: str, size: int) -> str:
        """The first elements of a row."""
        return self.node("Slice", value, self.sizes(0), self.sizes(size))

    def codes(self, packed: Sequence[Array], width: int, count: int) -> str:
        """Append the nodes that undo `pack`. [count] int32"""
        total = ""
        for part, (bits, start) in zip(packed, _planes(width), strict=True):
            values = self.payload(part)
            if bits < 8:  # in bytes as long as it goes
                values = self.reshaped(self.node("Gather", self._table(bits, start), self.cast(values)), -1)
                values = self.head(values, count) if count * bits % 8 else values
            values = self.cast(values)
            total = self.node("Add", total, values) if total else values
        return total

    def digits(self, base: int, count: int, scale: int = 1) -> str:
        """All numbers of some digits, as their digits, computed where they are needed. [base^count, count] int32"""
        numbers = self.node("Range", self.constant(0), self.constant(base**count), self.constant(1))
        shifted = self.node("Div", self.reshaped(numbers, -1, 1), self.constant(base ** np.arange(count)))
        digits = self.node("Mod", shifted, self.constant(base))
        return self.node("Mul", digits, self.constant(scale)) if scale > 1 else digits

    def _table(self, bits: int, start: int) -> str:
        """The parts in each byte. [256, 8 / bits] uint8"""
        if (bits, start) not in self._tables:
            self._tables[bits, start] = self.cast(self.digits(1 << bits, 8 // bits, 1 << start), TensorProto.UINT8)
        return self._tables[bits, start]

    def filled(self, flat: Flat, *shape: int) -> str:
        """A tensor of nothing but the fill, one for all who ask for the same: runtimes that fold keep all values to the end."""
        key = ("filled", flat.dtype, flat.fill, shape)
        if key not in self._shared:
            self._shared[key] = self._filled(flat, shape)
        return self._shared[key]

    def _filled(self, flat: Flat, shape: tuple[int, ...]) -> str:
        plain = TensorProto.FLOAT if flat.dtype == TensorProto.BFLOAT16 else flat.dtype
        array = np.full(1, flat.fill, flat.bits.dtype)
        value = np.zeros(1, np.float32) if plain != flat.dtype else flat.typed(array)
        made = self.node("ConstantOfShape", self.sizes(*shape), value=numpy_helper.from_array(value))
        return made if plain == flat.dtype else self.cast(made, flat.dtype)  # ConstantOfShape has no bfloat16 before 20

    def pieces(self, row: str, sizes: Sequence[int]) -> list[str]:
        """A row, cut."""
        if len(sizes) == 1:
            return [row]
        outputs = [self._name() for _ in sizes]
        if self._model.opset < 13:
            self.nodes.append(helper.make_node("Split", [row], outputs, split=sizes))
        else:
            self.nodes.append(helper.make_node("Split", [row, self.sizes(*sizes)], outputs))
        return outputs

    def _name(self) -> str:
        return self._model.fresh_name(f"sp{len(self.nodes) + len(self.weights)}")
