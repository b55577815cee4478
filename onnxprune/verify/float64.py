"""Copies of models that compute in float64, to tell rounding from error.

Networks amplify. A hundred layers with rectifiers and gates can turn the last bit of a float32 sum into a difference in the
fourth digit of an output, and then no fixed tolerance tells rounding from a channel that was lost: a larger one would hide
small errors in every other model. In float64 rounding is 2**29 times smaller while an error keeps its size, so what float32
cannot decide is decided there, to a far tighter tolerance.

ONNX Runtime has float64 kernels for most operators, but not for convolutions. These are written out as a sum of matrix
products, one for each place of the kernel. What else has no kernel runs in float32 between two casts: pooling, resizing and
activation functions sum over no channels, so that equal inputs give equal outputs in both models that are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from onnxprune.errors import ModelError
from onnxprune.ir.node import domain_of, subgraphs
from onnxprune.ir.precision import as_float32, retyped
from onnxprune.ir.subgraph import subgraph
from onnxprune.ir.weights import FLOATS, Weight
from onnxprune.runtime.session import inference_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["Float64Copy", "as_float64"]

_OPSET = 11
"""The first operator set in which ``Pad`` and ``Slice`` take all that a convolution is written out with."""
_END = np.iinfo(np.int64).max
_DOUBLE = TensorProto.DOUBLE
_REFUSED = {"GRU", "LSTM"}
"""Operators with a float64 kernel that refuses to run."""


@dataclass(frozen=True, slots=True)
class Float64Copy:
    """Attributes:
    model: the copy; its floating-point inputs, weights and outputs are float64.
    narrow: operators of it that compute in float32 for want of a kernel.
    """

    model: Model
    narrow: frozenset[str]


def as_float64(model: Model) -> Float64Copy:
    """A copy of a model that computes in float64 wherever ONNX Runtime can; in bodies of control flow, as float64 or not at all.

    Raises:
        ModelError: ONNX Runtime does not accept the model.
    """
    single, double = as_float32(model), retyped(model, _DOUBLE)
    kinds, shapes = _described(single)
    nodes = [*double.graph.node]
    del double.graph.node[:]
    writer, narrow, known = _Writer(double), set[str](), dict[Any, bool]()
    for node, original in zip(nodes, single.graph.node, strict=True):
        if _is_convolution(node, double.opset, shapes):
            writer.convolution(node, shapes[node.input[1]])
            continue
        read = [kinds.get(name, 0) for name in node.input]
        key = (domain_of(node), node.op_type, *read, *sorted(a.SerializeToString() for a in node.attribute))
        if key not in known:
            known[key] = any(subgraphs(node)) or _has_kernel(double, node, kinds)
        if known[key]:
            double.graph.node.append(node)
        else:
            narrow.add(node.op_type)
            writer.bridge(original, kinds)
    return Float64Copy(double, frozenset(narrow))


def _described(model: Model) -> tuple[dict[str, int], dict[str, Shape]]:
    """Element types of the values of the main graph, float64 for every float, and their shapes where these are known."""
    proto = model.skeleton()
    names = [name for node in proto.graph.node for name in node.output if name]
    del proto.graph.output[:]
    proto.graph.output.extend(ValueInfoProto(name=name) for name in names)
    running = inference_session(proto, model.name, optimize=False)
    kinds = {weight.name: weight.dtype for weight in model.weights.values()}
    shapes = {weight.name: weight.shape for weight in model.weights.values()}
    for value in (*running.get_inputs(), *running.get_outputs()):
        if value.type.startswith("tensor("):
            kinds[value.name] = TensorProto.DataType.Value(value.type[len("tensor(") : -1].upper())
            if all(isinstance(size, int) for size in value.shape):
                shapes[value.name] = tuple(value.shape)
    return {name: _DOUBLE if kind in FLOATS else kind for name, kind in kinds.items()}, shapes


def _has_kernel(model: Model, node: NodeProto, kinds: Mapping[str, int]) -> bool:
    """Tell whether ONNX Runtime runs a node on inputs of some types."""
    if node.op_type in _REFUSED and not domain_of(node):
        return _DOUBLE not in {kinds.get(name) for name in node.input}
    inputs = [helper.make_tensor_value_info(name, kinds[name], None) for name in dict.fromkeys(node.input) if name in kinds]
    try:
        inference_session(subgraph(model.proto, [node], inputs, filter(None, node.output)), optimize=False)
    except ModelError:
        return False
    return True


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_convolution(node: NodeProto, opset: int, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether a node is a convolution that can be written out: the shape of its weight and its padding are known."""
    if node.op_type not in {"Conv", "ConvTranspose"} or domain_of(node) or opset < _OPSET or node.input[1] not in shapes:
        return False
    given = _attributes(node)
    return given.get("auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"} and "output_shape" not in given


class _Writer:
    """Appends nodes to a graph."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._casts: dict[str, str] = {}

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: Array) -> str:
        name = self._model.fresh_name("float64__constant")
        self._model.weights[name] = Weight(name, None, array)
        return name

    def _node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or self._model.fresh_name(f"float64__{op}")
        self._model.graph.node.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def bridge(self, node: NodeProto, kinds: Mapping[str, int]) -> None:
        """Append a node that computes in float32, on values that are float64."""
        single = NodeProto()
        single.CopyFrom(node)
        for at, name in enumerate(node.input):
            if kinds.get(name) == _DOUBLE:
                if name not in self._casts:
                    self._casts[name] = self._node("Cast", name, to=TensorProto.FLOAT)
                single.input[at] = self._casts[name]
        made = [at for at, name in enumerate(node.output) if kinds.get(name) == _DOUBLE]
        for at in made:
            single.output[at] = self._model.fresh_name(f"{node.output[at]}__float32")
        self._model.graph.node.append(single)
        for at in made:
            self._node("Cast", single.output[at], output=node.output[at], to=_DOUBLE)

    def convolution(self, node: NodeProto, shape: Shape) -> None:
        """Append a convolution as products of matrices, given the shape of its weight.

        A transposed one is a convolution of inputs that are set apart by zeros, with its weight turned round.
        """
        given, (first, second, *kernel) = _attributes(node), shape
        rank, groups = len(kernel), given.get("group", 1)
        strides, dilations = (np.array(given.get(name, [1] * rank)) for name in ("strides", "dilations"))
        begin, end = np.array(given.get("pads", [0] * 2 * rank)).reshape(2, rank)
        reach, turned = (np.array(kernel) - 1) * dilations, node.op_type == "ConvTranspose"
        read, made = (first // groups, second) if turned else (second, first // groups)
        x = node.input[0]
        if turned:
            x = self._apart(x, strides)
            more = np.array(given.get("output_padding", [0] * rank))
            begin, end, strides = reach - begin, reach - end + more - (strides - 1), np.ones_like(strides)
        if begin.any() or end.any():
            x = self._node("Pad", x, self._ints(0, 0, *begin, 0, 0, *end))
        split = self._node("Reshape", node.input[1], self._ints(groups, first // groups, second, math.prod(kernel)))
        matrices = self._node("Transpose", split, perm=[3, 0, 2, 1] if turned else [3, 0, 1, 2])
        axes, steps, rows = self._ints(*range(2, rank + 2)), self._ints(*strides), self._ints(0, groups, read, -1)
        total = part = ""
        for place in np.ndindex(*kernel):
            start = np.array(place) * dilations
            stop = self._ints(*(end or _END for end in start - reach))
            part = self._node("Slice", x, self._ints(*start), stop, axes, steps)
            at = np.ravel_multi_index(tuple(np.subtract(kernel, 1) - place) if turned else place, kernel)
            matrix = self._node("Gather", matrices, self._constant(np.array(at, np.int64)), axis=0)
            product = "Mul" if read == 1 else "MatMul"  # the same for one channel, and fast for many groups of one
            term = self._node(product, matrix, self._node("Reshape", part, rows))
            total = self._node("Add", total, term) if total else term
        if len(node.input) > 2 and node.input[2]:
            total = self._node("Add", total, self._node("Reshape", node.input[2], self._ints(groups, made, 1)))
        sizes = self._node("Shape", part)
        batch, space = (self._node("Slice", sizes, self._ints(a), self._ints(b)) for a, b in ((0, 1), (2, _END)))
        whole = self._node("Concat", batch, self._ints(groups * made), space, axis=0)
        self._node("Reshape", total, whole, output=node.output[0])

    def _apart(self, x: str, strides: Array) -> str:
        """Zeros behind each position, so that every spatial axis is as many times longer as its stride says."""
        if (strides == 1).all():
            return x
        sizes = self._node("Mul", self._node("Shape", x), self._ints(1, 1, *strides))
        axes, pads = [3 + 2 * at for at in range(len(strides))], [0, 0, *(int(n) for s in strides for n in (0, s - 1))]
        old = self._model.opset < 13
        spread = self._node("Unsqueeze", x, axes=axes) if old else self._node("Unsqueeze", x, self._ints(*axes))
        return self._node("Reshape", self._node("Pad", spread, self._ints(*[0] * len(pads), *pads)), sizes)
