"""Finds decoders in a graph and computes what they make, without a runtime.

A decoder is known by what it is: nodes of a few operators, of exactly the forms that decoders have, that only constants feed,
among them a running sum or a scatter. The
name of its last node says where it ends; where a tool has dropped names, what follows and reads nothing else counts with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.ir.node import captured, domain_of, every_node
from onnxprune.ir.weights import Array, Weight
from onnxprune.sparse.encoding.decoder import LAST
from onnxprune.sparse.encoding.forms import OPERATORS, Kind, Step, attributes_of

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["Decoders", "decode_weights"]

_KEPT = 1 << 16
"""Bytes up to which a result is kept: tables that many decoders read."""
_MARKS = frozenset({"CumSum", "ScatterElements"})
"""Operators one of which every decoder has."""

_LAST = re.compile(LAST + r"\d+$")


class Decoders:
    """The decoders of a model.

    Attributes:
        weights: what they make, as constants that are computed when they are needed.
        families: how each is encoded.
        nodes: outputs of the nodes that nothing but these weights needs, or nothing at all.
        stored: the constants that they read.
        sources: the constants that each is made of, those included that several weights are made of.
    """

    def __init__(self, model: Model) -> None:
        self._constants = dict(model.weights)
        self._kinds = {name: Kind(weight.dtype, len(weight.shape)) for name, weight in model.weights.items()}
        self._makers: dict[str, NodeProto] = {}
        self._kept: dict[str, Array] = {}
        self._last: tuple[str, list[Array]] = ("", [])
        marked: set[str] = set()
        last: set[str] = set()
        for node in model.graph.node:
            inputs = [name for name in node.input if name]
            kinds = [self._kinds[name] for name in inputs if name in self._kinds and name not in last]
            operator = None if domain_of(node) else OPERATORS.get(node.op_type)
            if operator is None or not inputs or len(kinds) < len(node.input):
                continue
            kind = operator.makes(Step(node, kinds, self._constants))
            if kind is None:
                continue
            self._makers |= dict.fromkeys(node.output, node)
            self._kinds |= dict.fromkeys(node.output, kind)
            if node.op_type in _MARKS or not marked.isdisjoint(inputs):
                marked.update(node.output)
                last.update(node.output if _LAST.search(node.name) else ())
        read = self._read(model) if marked else set()
        made = [name for name in self._makers if name in marked and name in read]
        self.weights = {name: self._weight(name) for name in made}
        self.families = {name: self._family(name) for name in made}
        self.sources = {name: self._sources(name) for name in made}
        self.stored = {source for sources in self.sources.values() for source in sources}
        self.nodes = self._needed(marked) - self._needed((read & self._makers.keys()) - marked)

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
        return Weight.computed(name, self._shape(name), self._kinds[name].dtype, lambda: np.ascontiguousarray(self._value(name)))

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
            return tuple(shape[axis] for axis in attributes_of(node)["perm"])
        return tuple(self._value(name).shape)

    def _value(self, name: str) -> Array:
        if name in self._constants:
            return self._constants[name].array()
        if name in self._kept:
            return self._kept[name]
        node = self._makers[name]
        at = list(node.output).index(name)
        if node.output[0] == self._last[0]:
            return self._last[1][at]
        inputs = [self._value(value) for value in node.input]
        try:
            result = OPERATORS[node.op_type].compute(inputs, attributes_of(node))
        except (IndexError, ValueError) as error:
            raise ModelError(
                f"{name!r} cannot be computed: {node.op_type} of constants: {error}; export the model again"
            ) from error
        if isinstance(result, list):  # the pieces of a row are asked for one after the other
            self._last = (node.output[0], result)
            return self._last[1][at]
        if result.nbytes <= _KEPT:
            self._kept[name] = result
        return np.asarray(result)


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
