"""Finds decoders in a graph and computes what they make, without a runtime.

A decoder is known by what it is: nodes of a few operators that only constants feed, among them a running sum or a scatter. The
name of its last node says where it ends; where a tool has dropped names, what follows and reads nothing else counts with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from onnxprune.ir.node import captured, domain_of, every_node
from onnxprune.ir.weights import Array, Weight
from onnxprune.sparse.encoding.decoder import LAST

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["Decoders", "decode_weights"]

_KEPT = 1 << 16
"""Bytes up to which a result is kept: tables that many decoders read."""
_MARKS = frozenset({"CumSum", "ScatterElements"})
"""Operators one of which every decoder has."""
_PASSING = frozenset({"Concat", "GatherElements", "Identity", "Reshape", "ScatterElements", "Slice", "Split", "Transpose"})
"""Operators whose result is of the type of their first input."""

_LAST = re.compile(LAST + r"\d+$")

Arrays = Sequence[Array]
Attributes = Mapping[str, Any]


def _running_sum(inputs: Arrays, attributes: Attributes) -> Array:
    row = inputs[0]
    sums = np.cumsum(row, dtype=row.dtype)
    return sums - row if attributes.get("exclusive") else sums


def _scatter(inputs: Arrays, attributes: Attributes) -> Array:
    data = inputs[0].copy()
    np.put_along_axis(data, inputs[1], inputs[2], attributes.get("axis", 0))
    return data


def _split(inputs: Arrays, attributes: Attributes) -> list[Array]:
    sizes = inputs[1] if len(inputs) > 1 else attributes["split"]
    return np.split(inputs[0], np.cumsum(sizes)[:-1])


def _slice(inputs: Arrays, _: Attributes) -> Array:
    return inputs[0][int(inputs[1][0]) : int(inputs[2][0])]


def _full(inputs: Arrays, attributes: Attributes) -> Array:
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(tuple(inputs[0]), value[0], value.dtype)


OPERATORS: dict[str, Callable[[Arrays, Attributes], Any]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Cast": lambda inputs, attributes: inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"])),
    "Concat": lambda inputs, attributes: np.concatenate(inputs, attributes["axis"]),
    "ConstantOfShape": _full,
    "CumSum": _running_sum,
    "Div": lambda inputs, _: inputs[0] // inputs[1],
    "Gather": lambda inputs, _: inputs[0][inputs[1]],
    "GatherElements": lambda inputs, _: inputs[0][inputs[1]],
    "Identity": lambda inputs, _: inputs[0],
    "Less": lambda inputs, _: inputs[0] < inputs[1],
    "Mod": lambda inputs, _: inputs[0] % inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Range": lambda inputs, _: np.arange(*map(int, inputs), dtype=inputs[0].dtype),
    "Reshape": lambda inputs, _: inputs[0].reshape(tuple(inputs[1])),
    "ScatterElements": _scatter,
    "Slice": _slice,
    "Split": _split,
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes["perm"]),
}
"""The operators of decoders, as decoders use them: rows along their only axis, integers that are not negative."""


class Decoders:
    """The decoders of a model.

    Attributes:
        weights: what they make, as constants that are computed when they are needed.
        families: how each is encoded.
        nodes: outputs of the nodes that nothing but these weights needs.
        stored: the constants that they read.
        sources: the constants that each is made of, tables that decoders share left out.
    """

    def __init__(self, model: Model) -> None:
        self._constants = dict(model.weights)
        self._makers: dict[str, NodeProto] = {}
        self._kept: dict[str, Array] = {}
        self._last: tuple[str, list[Array]] = ("", [])
        marked: set[str] = set()
        last: set[str] = set()
        for node in model.graph.node:
            inputs = [name for name in node.input if name]
            known = all(name in self._constants or (name in self._makers and name not in last) for name in inputs)
            if domain_of(node) or node.op_type not in OPERATORS or not inputs or not known:
                continue
            self._makers |= dict.fromkeys(node.output, node)
            if node.op_type in _MARKS or not marked.isdisjoint(inputs):
                marked.update(node.output)
                last.update(node.output if _LAST.search(node.name) else ())
        read = self._read(model) if marked else set()
        made = [name for name in self._makers if name in marked and name in read]
        self.weights = {name: self._weight(name) for name in made}
        self.families = {name: self._family(name) for name in made}
        self.stored = {source for name in made for source in self._sources(name)}
        self.nodes = self._needed(made) - self._needed((read & self._makers.keys()) - marked)

    def _read(self, model: Model) -> set[str]:
        """The values that are read outside of decoders, or returned."""
        ours = {id(node) for node in self._makers.values()}
        read = {value.name for value in model.graph.output}
        for node in every_node(model.graph):
            if id(node) not in ours:
                read.update(node.input)
                read |= captured(node)
        return read

    def _weight(self, name: str) -> Weight:
        return Weight.computed(name, self._shape(name), self._dtype(name), lambda: np.ascontiguousarray(self._value(name)))

    def _needed(self, names: Any) -> set[str]:
        """Values that others are made of, themselves included."""
        found: set[str] = set()
        stack = [name for name in names if name in self._makers]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(value for value in self._makers[name].input if value in self._makers)
        return found

    def _family(self, name: str) -> str:
        ops = {self._makers[value].op_type for value in self._needed([name])}
        return "nm" if "CumSum" not in ops else "delta" if "ScatterElements" in ops else "bitmask"

    def _sources(self, name: str) -> set[str]:
        """The constants that a weight is made of."""
        return {value for made in self._needed([name]) for value in self._makers[made].input if value in self._constants}

    def _shape(self, name: str) -> Shape:
        node = self._makers[name]
        if node.op_type == "Reshape" and node.input[1] in self._constants:
            sizes = self._constants[node.input[1]].array()
            if (sizes > 0).all():
                return tuple(int(size) for size in sizes)
        if node.op_type == "Transpose" and node.input[0] in self._makers:
            shape = self._shape(node.input[0])
            return tuple(shape[axis] for axis in _attributes(node)["perm"])
        return tuple(self._value(name).shape)

    def _dtype(self, name: str) -> int:
        while name in self._makers:
            node = self._makers[name]
            attributes = _attributes(node)
            if node.op_type == "Cast":
                return int(attributes["to"])
            if node.op_type == "ConstantOfShape" and "value" in attributes:
                return helper.np_dtype_to_tensor_dtype(attributes["value"].dtype)
            if node.op_type not in _PASSING:
                return helper.np_dtype_to_tensor_dtype(self._value(name).dtype)
            name = node.input[0]
        return self._constants[name].dtype

    def _value(self, name: str) -> Array:
        if name in self._constants:
            return self._constants[name].array()
        if name in self._kept:
            return self._kept[name]
        node = self._makers[name]
        at = list(node.output).index(name)
        if node.output[0] == self._last[0]:
            return self._last[1][at]
        result = OPERATORS[node.op_type]([self._value(value) for value in node.input if value], _attributes(node))
        if isinstance(result, list):  # the pieces of a row are asked for one after the other
            self._last = (node.output[0], result)
            return self._last[1][at]
        if result.nbytes <= _KEPT:
            self._kept[name] = result
        return np.asarray(result)


def _attributes(node: NodeProto) -> dict[str, Any]:
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = numpy_helper.to_array(value) if attribute.name == "value" else value
    return found


def decode_weights(model: Model) -> list[str]:
    """Put the weights that decoders make in their place; their names."""
    found = Decoders(model)
    if not found.weights:
        return []
    kept = [node for node in model.graph.node if found.nodes.isdisjoint(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in every_node(model.graph) for name in (*node.input, *captured(node))}
    read |= {value.name for value in model.graph.output}
    model.weights.update(found.weights)
    for name in found.stored - read:
        del model.weights[name]
    return list(found.weights)
