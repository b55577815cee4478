"""Control flow as data flow: which values inside a body are which values outside it.

``If``, ``Loop`` and ``Scan`` compute nothing themselves: they choose, carry and stack what their bodies compute. A `Phi` says
of one value which others it is made of, as the phi nodes of static single assignment do, and which axes come on top: the
sequence that a loop runs along. Names are unique over all bodies, so a captured value is the same value on both sides, and a
graph with bodies reads as one list of nodes and phis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.node import FOLLOWED, is_followed, subgraphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import GraphProto

__all__ = ["Along", "End", "Path", "Phi", "Trips", "node_at", "walk"]

Path = tuple[int, ...]
"""The place of a node among the nodes of the graph; for one in a body the number of the body and its place there follow."""


@dataclass(frozen=True, slots=True)
class End:
    """A value, and those of its axes that the other values of a phi do not have; negative ones count from the back."""

    value: str
    own: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trips:
    """The number of iterations of a ``Loop``: ``limit`` where all ``conditions`` are known to hold, else known at run time."""

    limit: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Along:
    """The size of an axis of a value."""

    value: str
    axis: int


@dataclass(frozen=True, slots=True)
class Phi:
    """A value that control flow makes of others.

    Attributes:
        op: the operator of the node that makes it.
        node: the name of that node; empty if it has none.
        target: the value.
        sources: what it may be; none for the number of an iteration, and for a condition that is not given.
        back: whether it closes a loop: the target, made of something else before, is the source in the next iteration.
        sizes: the sizes of the target's own axes.
        deciding: values that decide which source it is, or how often.
        dtype: the ``TensorProto.DataType`` of what has no sources.
        rank: the rank of what has no sources; its one element may lie in a vector.
    """

    op: str
    node: str
    target: End
    sources: tuple[End, ...]
    back: bool = False
    sizes: tuple[Trips | Along, ...] = ()
    deciding: tuple[str, ...] = ()
    dtype: int = 0
    rank: int = 0

    def proto(self) -> NodeProto:
        """A node of the same name, inputs and output."""
        return NodeProto(op_type=self.op, name=self.node, input=[end.value for end in self.sources], output=[self.target.value])


def walk(graph: GraphProto, opset: int, path: Path = ()) -> Iterator[tuple[Path, NodeProto | Phi]]:
    """Every node and phi of a graph and its bodies, in an order in which everything is made before it is read.

    The nodes that are followed are not among them: the phis, and the nodes of the bodies, stand for them.
    """
    for place, node in enumerate(graph.node):
        here = (*path, place)
        if node.op_type not in FOLLOWED or not is_followed(node):
            yield here, node
            continue
        entering, leaving = _phis(node, opset)
        yield from ((here, phi) for phi in entering)
        for number, body in enumerate(subgraphs(node)):
            yield from walk(body, opset, (*here, number))
        yield from ((here, phi) for phi in leaving)


def node_at(graph: GraphProto, path: Path) -> NodeProto:
    """The node at a place."""
    node: NodeProto = graph.node[path[0]]
    for number, place in zip(path[1::2], path[2::2], strict=True):
        node = list(subgraphs(node))[number].node[place]
    return node


def _phis(node: NodeProto, opset: int) -> tuple[list[Phi], list[Phi]]:
    """The phis of the values that enter the bodies of a node, and those of the values that leave them."""
    attributes: dict[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "If":
        return [], _branches(node, attributes["then_branch"], attributes["else_branch"])
    if node.op_type == "Loop":
        return _loop(node, attributes["body"])
    return _scan(node, attributes, (0,) if opset < 9 else ())


def _branches(node: NodeProto, then: GraphProto, other: GraphProto) -> list[Phi]:
    return [
        Phi("If", node.name, End(name), (End(a.name), End(b.name)), deciding=(node.input[0],))
        for name, a, b in zip(node.output, then.output, other.output, strict=False)
        if name
    ]


def _loop(node: NodeProto, body: GraphProto) -> tuple[list[Phi], list[Phi]]:
    limit, condition, *initial = list(node.input) + [""] * (2 - len(node.input))
    number, going_in, *carried = [value.name for value in body.input]
    going_on, *results = [value.name for value in body.output]
    given = (End(condition),) if condition else ()
    ranks = [len(value.type.tensor_type.shape.dim) for value in body.input[:2]]
    entering = [
        Phi("Loop", node.name, End(number), (), dtype=TensorProto.INT64, rank=ranks[0]),
        Phi("Loop", node.name, End(going_in), given, dtype=TensorProto.BOOL, rank=ranks[1]),
        *_entering(node, initial, carried),
    ]
    conditions = [going_on] if _origin(body, going_on) != going_in else []
    trips = Trips(limit, tuple(filter(None, (condition, *conditions))))
    deciding = tuple(filter(None, (limit, condition, going_on)))
    leaving = [
        Phi("Loop", node.name, End(going_in), (End(going_on),), back=True),
        *_leaving(node, carried[: len(initial)], results, deciding),
    ]
    leaving += [
        Phi("Loop", node.name, End(name, (0,)), (End(result),), sizes=(trips,), deciding=deciding)
        for name, result in zip(node.output[len(initial) :], results[len(initial) :], strict=False)
        if name
    ]
    return entering, leaving


def _origin(body: GraphProto, name: str) -> str:
    """The value of a body that a value of it is a copy of."""
    copies = {inner.output[0]: inner.input[0] for inner in body.node if inner.op_type == "Identity"}
    while name in copies:
        name = copies[name]
    return name


def _scan(node: NodeProto, attributes: Mapping[str, Any], outer: tuple[int, ...]) -> tuple[list[Phi], list[Phi]]:
    """``outer`` are the axes that bodies do not see: in operator set 8 the batch, and the sequence comes second."""
    body, count = attributes["body"], attributes["num_scan_inputs"]
    inputs = list(node.input)[len(outer) :]  # a batched scan starts with the lengths of the sequences
    carried, results = [value.name for value in body.input], [value.name for value in body.output]
    states = len(inputs) - count
    into = attributes.get("scan_input_axes") or [len(outer)] * count
    out_of = attributes.get("scan_output_axes") or [len(outer)] * (len(results) - states)
    entering = _entering(node, inputs[:states], carried, outer)
    entering += [
        Phi("Scan", node.name, End(name), (End(value, (*outer, axis)),))
        for name, value, axis in zip(carried[states:], inputs[states:], into, strict=False)
    ]
    batch = tuple(Along(inputs[-1], axis) for axis in outer)
    leaving = _leaving(node, carried[:states], results, outer=outer, sizes=batch)
    leaving += [
        Phi("Scan", node.name, End(name, (*outer, axis)), (End(result),), sizes=(*batch, Along(inputs[-1], into[-1])))
        for name, result, axis in zip(node.output[states:], results[states:], out_of, strict=False)
        if name
    ]
    return entering, leaving


def _entering(node: NodeProto, initial: Sequence[str], carried: Sequence[str], outer: tuple[int, ...] = ()) -> list[Phi]:
    """Each carried value starts as its initial value."""
    pairs = zip(initial, carried, strict=False)
    return [Phi(node.op_type, node.name, End(name), (End(first, outer),)) for first, name in pairs]


def _leaving(
    node: NodeProto,
    carried: Sequence[str],
    results: Sequence[str],
    deciding: tuple[str, ...] = (),
    outer: tuple[int, ...] = (),
    sizes: tuple[Along, ...] = (),
) -> list[Phi]:
    """Each carried value is then what the body makes of it; at the end, what the next iteration would start from."""
    back = [
        Phi(node.op_type, node.name, End(name), (End(result),), back=True) for name, result in zip(carried, results, strict=False)
    ]
    return back + [
        Phi(node.op_type, node.name, End(name, outer), (End(value),), sizes=sizes, deciding=deciding)
        for name, value in zip(node.output, carried, strict=False)
        if name
    ]
