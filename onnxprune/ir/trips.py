"""Loops that no user waits for: one number in a file can ask for any amount of time.

Exporters write ``while`` with the largest number there is, and a condition that ends it: such loops pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.ir.node import domain_of, origin, subgraphs
from onnxprune.ir.weights import Weight

__all__ = ["demand_ends"]

_MOST = 1 << 30
"""Runs of a body: ONNX Runtime takes about a microsecond for the shortest, and a quarter of an hour for so many."""
_PASSES = frozenset({"Identity", "Cast"})
_WHOLE = frozenset({TensorProto.INT64, TensorProto.BOOL})
"""Types of the number of runs, and of conditions."""

_Constants = Mapping[str, Weight]


def demand_ends(graph: GraphProto, file: Path | None = None, outer: _Constants | None = None) -> None:
    """Refuse loops that run too often, and whose bodies cannot end them.

    Args:
        graph: of a model, or a body.
        file: the model's; a number may lie beside it, as external data.
        outer: constants of the graphs around it, by name.

    Raises:
        ModelError: names the node.
    """
    nodes = [node for node in graph.node if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute)]
    constants = _constants(graph, file, outer or {}) if nodes else {}
    for node in nodes:
        if node.op_type == "Loop" and not domain_of(node):
            _demand_end(node, file, constants)
        for body in subgraphs(node):
            demand_ends(body, file, constants)


def _constants(graph: GraphProto, file: Path | None, outer: _Constants) -> _Constants:
    """The constants of a graph that no caller may override, and those of the graphs around it, under all their names."""
    given = {value.name for value in graph.input}
    found = {name: weight for name, weight in outer.items() if name not in given}
    found |= {tensor.name: Weight(tensor.name, tensor, file=file) for tensor in graph.initializer if tensor.name not in given}
    for node in graph.node:
        if domain_of(node):
            continue
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = Weight(node.output[0], node.attribute[0].t, file=file)
        elif node.op_type == "Constant" and node.attribute[0].name == "value_int":
            found[node.output[0]] = Weight(node.output[0], None, np.array(node.attribute[0].i))
        elif node.op_type in _PASSES and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _demand_end(node: NodeProto, file: Path | None, constants: _Constants) -> None:
    trips = _number(node.input[0], constants)
    most = trips is not None and trips > _MOST
    if not (most or not node.input[0]) or not _holds(node.input[1] if len(node.input) > 1 else "", constants):
        return
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    if _goes_on(body, file, constants):
        often = f"{trips} times" if most else "without end"
        raise ModelError(f"Loop node {node.name or node.output[0]!r} runs {often}, and nothing in its body ends it")


def _number(name: str, constants: _Constants) -> int | None:
    """The value of a constant with one element; ``None`` where it is none."""
    weight = constants.get(name)
    if weight is None or weight.dtype not in _WHOLE or weight.size != 1:
        return None
    return int(weight.array().reshape(-1)[0])


def _holds(name: str, constants: _Constants) -> bool:
    """Whether a condition is always true."""
    return not name or bool(_number(name, constants))


def _goes_on(body: GraphProto, file: Path | None, outer: _Constants) -> bool:
    """Whether the condition that a body returns is the one that it got, or always true."""
    constants, makers = _constants(body, file, outer), {name: node for node in body.node for name in node.output}
    name = origin(body.output[0].name, makers, _PASSES)
    return name == body.input[1].name or bool(_number(name, constants))
