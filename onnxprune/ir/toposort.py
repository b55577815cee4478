"""Nodes in an order in which each can run.

The format asks for it, but ONNX Runtime sorts for itself, so that tools get away with appending nodes at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxprune.errors import ModelError
from onnxprune.ir.node import values_read

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["in_order"]


def in_order(nodes: Sequence[NodeProto], name: str = "<model>") -> list[NodeProto]:
    """The nodes of a graph, each behind the nodes whose outputs it reads; otherwise in the order they came in.

    Raises:
        ModelError: nodes read each other's outputs in a circle.
    """
    producers = {value: at for at, node in enumerate(nodes) for value in node.output if value}
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for at, node in enumerate(nodes):
        sources = {producers[value] for value in values_read(node) if value in producers}
        missing[at] = len(sources)
        for source in sources:
            readers[source].append(at)
    ready = [at for at, count in enumerate(missing) if not count]
    ordered = []
    while ready:
        at = heapq.heappop(ready)
        ordered.append(nodes[at])
        for reader in readers[at]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) < len(nodes):
        node = nodes[next(at for at, count in enumerate(missing) if count)]
        which = f"{node.op_type} node {node.name or node.output[0]!r}"
        raise ModelError(f"{name}: {which} waits for its own output, in a circle: export the model again")
    return ordered
