"""A node as a rule sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, helper

from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from onnxprune.ir.types import Shape

__all__ = [
    "CONTROL_FLOW",
    "FOLLOWED",
    "QDQ",
    "STANDARD_DOMAINS",
    "NodeView",
    "captured",
    "defined",
    "domain_of",
    "every_body",
    "every_graph",
    "every_node",
    "is_followed",
    "is_sum_of_two",
    "origin",
    "set_attribute",
    "subgraphs",
    "values_read",
]

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
FOLLOWED = frozenset({"If", "Loop", "Scan"})
"""Operators whose bodies the compiler looks into."""
QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def domain_of(node: NodeProto) -> str:
    """The operator set of a node; the standard one is ``""``."""
    return "" if node.domain in STANDARD_DOMAINS else node.domain


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a control-flow node."""
    if not node.domain and node.op_type not in CONTROL_FLOW:
        return  # looking at attributes is slow, and nearly every node is one of these
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def is_followed(node: NodeProto) -> bool:
    """Tell whether the bodies of a node are part of what is compiled."""
    return node.op_type in FOLLOWED and node.domain in STANDARD_DOMAINS


def every_graph(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and the bodies that are followed, at every level, each before those inside it."""
    yield graph
    for node in graph.node:
        if node.op_type in FOLLOWED and is_followed(node):  # the first test is what nearly every node costs
            for body in subgraphs(node):
                yield from every_graph(body)


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the bodies that are followed, each control-flow node before its bodies."""
    for node in graph.node:
        yield node
        if node.op_type in FOLLOWED and is_followed(node):
            for body in subgraphs(node):
                yield from every_node(body)


def every_body(graph: GraphProto) -> Iterator[GraphProto]:
    """The bodies of all nodes of a graph, followed or not, at every level, each before those inside it."""
    for node in graph.node:
        for body in subgraphs(node):
            yield body
            yield from every_body(body)


def is_sum_of_two(node: NodeProto) -> bool:
    """Tell whether a node adds two values, as ``Add`` and some uses of ``Sum`` do."""
    return node.op_type in {"Add", "Sum"} and len(node.input) == 2 and not domain_of(node)


def origin(name: str, makers: Mapping[str, NodeProto], operators: Collection[str]) -> str:
    """The value that another one is made of, first input by first input, by these operators of the standard alone.

    Graphs that nobody has sorted yet may hold circles: the walk ends where it has been.
    """
    seen: set[str] = set()
    while name in makers and name not in seen and makers[name].op_type in operators and not domain_of(makers[name]):
        seen.add(name)
        name = makers[name].input[0]
    return name


def defined(graph: GraphProto) -> list[str]:
    """The values that a graph itself makes: its inputs, constants, and what its nodes compute."""
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output if name]
    return list(dict.fromkeys(names))


def captured(node: NodeProto) -> set[str]:
    """Outer values that the bodies of a node read without naming them as inputs."""
    names: set[str] = set()
    for graph in subgraphs(node):
        used = {v.name for v in graph.output}
        for inner in graph.node:
            used |= set(inner.input) | captured(inner)
        names |= used - set(defined(graph)) - {""}
    return names


def values_read(node: NodeProto) -> list[str]:
    """The values that a node reads: its inputs that are present, then the outer values that its bodies read."""
    return [name for name in (*node.input, *sorted(captured(node))) if name]


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give an attribute a value; one that has it already is left alone."""
    for attribute in node.attribute:
        if attribute.name == name:
            if helper.get_attribute_value(attribute) != value:
                attribute.CopyFrom(helper.make_attribute(name, value))
            return
    node.attribute.append(helper.make_attribute(name, value))


class NodeView:
    """A node as a rule sees it: operator, attributes, concrete shapes and small constant inputs.

    Shapes are those of one probe of the model, in which every dynamic size has some definite value.

    Attributes:
        detached: whether positions that it picks from another axis may go although those of that axis stay.
    """

    __slots__ = (
        "_attributes",
        "_constants",
        "_dynamic",
        "_shapes",
        "detached",
        "domain",
        "inputs",
        "name",
        "op",
        "opset",
        "outputs",
    )

    def __init__(
        self,
        node: NodeProto,
        shapes: Mapping[str, Shape | None],
        constants: Mapping[str, Array],
        dynamic: Mapping[str, tuple[bool, ...]],
        opset: int,
        *,
        detached: bool = False,
    ) -> None:
        self.op, self.domain, self.opset = node.op_type, domain_of(node), opset
        self.inputs: Sequence[str] = tuple(node.input)
        self.outputs: Sequence[str] = tuple(node.output)
        self.name = node.name or f"{node.op_type}({', '.join(node.output)})"
        self._shapes, self._constants, self._dynamic = shapes, constants, dynamic
        self._attributes = node.attribute
        self.detached = detached

    def __getstate__(self) -> Any:
        """What pickle takes of it: a list of attributes that belongs to a node cannot be pickled, attributes can."""
        return None, {name: getattr(self, name) for name in self.__slots__} | {"_attributes": tuple(self._attributes)}

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; text is decoded."""
        for attribute in self._attributes:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def has(self, position: int) -> bool:
        """Tell whether an input is present."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def shape(self, position: int = 0) -> Shape:
        """The shape of an input that is present."""
        shape = self._shapes[self.inputs[position]]
        assert shape is not None  # noqa: S101 - coupling asks no rule about a node with an unknown shape
        return shape

    def out(self, position: int = 0) -> Shape:
        """The shape of an output."""
        shape = self._shapes[self.outputs[position]]
        assert shape is not None  # noqa: S101 - as above
        return shape

    def is_dynamic(self, axis: int, position: int = 0) -> bool:
        """Tell whether the size of an axis of an input changes from call to call."""
        flags = self._dynamic.get(self.inputs[position])
        return flags is not None and flags[axis]

    def makes_dynamic(self, axis: int, position: int = 0) -> bool:
        """Tell whether the size of an axis of an output changes from call to call."""
        flags = self._dynamic.get(self.outputs[position])
        return flags is not None and flags[axis]

    def const(self, position: int) -> Array | None:
        """The value of an input that is a small constant (or is known from the probe), else ``None``."""
        return self._constants.get(self.inputs[position]) if self.has(position) else None

    def axis(self, default: int = 0, name: str = "axis") -> int:
        """An axis attribute, counted from the front of the first input."""
        return int(self.attr(name, default)) % max(len(self.shape()), 1)

    def ints(self, name: str, position: int) -> list[int] | None:
        """Integers given by an attribute (older operator sets) or by a constant input (newer ones)."""
        value = self.attr(name)
        if value is None:
            value = self.const(position)
        return None if value is None else [int(v) for v in np.asarray(value).reshape(-1)]
