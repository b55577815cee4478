"""A small model for timing in the form that ONNX Runtime's quantizer gives it: ``QuantizeLinear`` and ``DequantizeLinear``
(QDQ) around what computes in int8.

The quantizer itself takes a tenth of a second for each model, and the numbers of weights. Time does not depend on ranges, so that
values have any, and constants stay without data.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.node import domain_of, is_followed
from onnxprune.runtime.float_outputs import with_float_outputs
from onnxprune.runtime.int8_operators import LINEAR, is_direct, is_removable, operators

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["in_int8"]

_OPSET = 10
"""The first with ``QuantizeLinear``."""
_DATA_ALONE = frozenset({"Resize", "Pad", "Gather", "GatherElements"})
"""Operators of which the first input alone is quantised; others are sizes or places."""
_ALIKE = _DATA_ALONE | {"Split"}
"""Operators whose outputs have the scale of the first input."""


class _Scale(NamedTuple):
    """How integers of a type stand for numbers."""

    dtype: int
    step: float
    zero: int = 0


_STEP = 2.0**-6
_WEIGHT, _CONSTANT = _Scale(TensorProto.INT8, _STEP), _Scale(TensorProto.UINT8, _STEP)
_MIDDLE = 128
"""The zero of values with a sign."""


def in_int8(model: ModelProto) -> ModelProto:
    """The model as it would be quantised, whatever its numbers are; itself where it has bodies, or is of too old an operator set.

    Args:
        model: its constants may lack data.
    """
    opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if opset < _OPSET or any(is_followed(node) for node in model.graph.node):
        return model
    return _Quantized(model).result


class _Quantized:
    """A model on its way to int8."""

    def __init__(self, model: ModelProto) -> None:
        self.result = ModelProto()
        self.result.CopyFrom(model)
        graph = self.result.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        types = {value.name: value.type.tensor_type.elem_type for value in typed_values(infer_shapes(model))}
        self._floats = {name for name, kind in types.items() if kind == TensorProto.FLOAT}
        self._floats |= {name for name, one in self._constants.items() if one.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in graph.output}
        self._added: dict[str, TensorProto] = {}
        self._rectified: set[str] = set()
        nodes = list(self._without_rectifiers(graph.node))
        self._values = self._scales(nodes)
        written = [pair for value in graph.input for pair in self._pair(value.name, value.name)]
        for node in nodes:
            written += self._written(node)
        written = with_float_outputs(written, self._outputs, self._rectified)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(written)
        read = {name for node in written for name in node.input} | self._outputs
        graph.initializer.extend(one for one in (*self._constants.values(), *self._added.values()) if one.name in read)

    def _without_rectifiers(self, nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
        """The nodes without rectifiers that alone read what a quantised node makes: that node outputs what they did."""
        readers = Counter(name for node in nodes for name in node.input) + Counter(self._outputs)
        made: dict[str, NodeProto] = {}
        for node in nodes:
            maker = made.get(node.input[0]) if is_removable(node.op_type) else None
            if maker and readers[node.input[0]] == 1:
                maker.output[0] = node.output[0]
                made[node.output[0]] = maker
                self._rectified.add(node.output[0])
                continue
            if self._computes(node):
                made[node.output[0]] = node
            yield node

    @staticmethod
    def _computes(node: NodeProto) -> bool:
        """Whether a node is quantised whatever its inputs are."""
        known = domain_of(node) == "" and node.op_type in operators()
        return known and not is_direct(node.op_type) and not is_removable(node.op_type)

    def _scales(self, nodes: Sequence[NodeProto]) -> dict[str, _Scale]:
        """The values that integers stand for. They all differ: where two are alike, ONNX Runtime drops conversions."""
        found: dict[str, _Scale] = {}
        rectified = {name for node in nodes if is_removable(node.op_type) for name in node.output}

        def add(names: Iterable[str]) -> None:
            for name in names:
                if name in self._floats and name not in self._constants:
                    zero = 0 if name in rectified else _MIDDLE
                    found.setdefault(name, _Scale(TensorProto.UINT8, _STEP * (1 + len(found) / 64), zero))

        for node in nodes:
            computes, read = self._computes(node), next(iter(node.input), "")
            if computes:
                add(node.input[:1] if node.op_type in _DATA_ALONE else node.input)
            if read in found and (is_direct(node.op_type) or node.op_type in _ALIKE):
                found |= {name: found[read] for name in node.output if name in self._floats}
            elif computes or (read in found and is_removable(node.op_type)):
                add(node.output)
        return found

    def _written(self, node: NodeProto) -> Iterator[NodeProto]:
        """A node, with what decodes constants in front of it, and the pairs of what it makes behind it."""
        computes, made = self._computes(node), list(node.output)
        scales = [self._values.get(name, _WEIGHT) for name in node.input]
        for at, name in enumerate(node.input):
            if name in self._values:
                node.input[at] = self._result(name)
            elif computes and name in self._floats and not (at and node.op_type in _DATA_ALONE):
                scale = _CONSTANT
                if node.op_type in LINEAR and at:  # ONNX Runtime asks that the step of a bias is that of the sums
                    scale = _WEIGHT if at == 1 else _Scale(TensorProto.INT32, scales[0].step * scales[1].step)
                stored = f"{name}.{len(self._added)}"
                self._added[stored] = TensorProto(name=stored, data_type=scale.dtype, dims=self._constants[name].dims)
                node.input[at] = f"{stored}.decoded"
                yield helper.make_node("DequantizeLinear", [stored, *self._params(scale)], [node.input[at]])
        for at, name in enumerate(made):
            if name in self._values and name in self._outputs:
                node.output[at] = f"{name}.float"
        yield node
        for name, source in zip(made, node.output, strict=True):
            yield from self._pair(name, source)

    def _pair(self, name: str, source: str) -> Iterator[NodeProto]:
        """The nodes that quantise a value and decode it again; none for other values."""
        if name in self._values:
            params = self._params(self._values[name])
            yield helper.make_node("QuantizeLinear", [source, *params], [f"{name}.uint8"])
            yield helper.make_node("DequantizeLinear", [f"{name}.uint8", *params], [self._result(name)])

    def _result(self, name: str) -> str:
        """What decodes a value: of an output of the graph it has its name."""
        return name if name in self._outputs else f"{name}.decoded"

    def _params(self, scale: _Scale) -> list[str]:
        """The constants of a scale."""
        dtype = helper.tensor_dtype_to_np_dtype(scale.dtype)
        return [self._scalar(np.float32(scale.step)), self._scalar(np.asarray(scale.zero, dtype))]

    def _scalar(self, value: Any) -> str:
        name = f"int8.{value.dtype}.{value}"
        self._added[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
