"""A part of a graph as a model of its own.

Large models run in segments, statistics are taken in stages, shapes are inferred between the joints of control flow, and layers
are timed alone. Each of these takes some nodes, feeds what they read from outside, and asks for some of what they compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import ModelProto, ValueInfoProto

from onnxprune.ir.model import Model
from onnxprune.ir.node import values_read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from onnx import NodeProto

__all__ = ["extract", "needed", "outer_values", "subgraph"]


def outer_values(nodes: Sequence[NodeProto]) -> list[str]:
    """The values that nodes and their bodies read and that none of the nodes makes, in the order of the first read."""
    made = {name for node in nodes for name in node.output}
    return list(dict.fromkeys(name for node in nodes for name in values_read(node) if name not in made))


def needed(nodes: Sequence[NodeProto], values: Collection[str]) -> set[int]:
    """The places of the nodes that values need."""
    found, wanted = set(), set(values)
    for place in reversed(range(len(nodes))):
        if not wanted.isdisjoint(nodes[place].output):
            found.add(place)
            wanted.update(values_read(nodes[place]))
    return found


def subgraph(
    proto: ModelProto, nodes: Iterable[NodeProto], inputs: Iterable[ValueInfoProto], outputs: Iterable[str]
) -> ModelProto:
    """Nodes between inputs and outputs, as a model with the operator sets and local functions of another; no constants."""
    # Before IR version 4 every constant had to be a graph input too.
    part = ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import, functions=proto.functions)
    part.graph.name = "part"
    part.graph.node.extend(nodes)
    part.graph.input.extend(inputs)
    part.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return part


def extract(model: Model, nodes: Sequence[NodeProto], outputs: Iterable[str], info: Callable[[str], ValueInfoProto]) -> Model:
    """Nodes of a model as a model of their own, with the weights that they read; its inputs are what else they read.

    Args:
        model: the model that has the nodes.
        nodes: some of its nodes, in topological order.
        outputs: values that the nodes make.
        info: gives the name and type of a value that is read from outside.
    """
    read = outer_values(nodes)
    proto = subgraph(model.proto, nodes, (info(name) for name in read if name not in model.weights), outputs)
    weights = {name: model.weights[name] for name in read if name in model.weights}
    return Model(proto, weights, model.name, sizes=model.sizes)
