"""Control flow: bodies are programs that read the values around them; iterations are unrolled as they happen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.program import CallContext, ValueScope
from onnxprune.torch.registry import Node, op


@op("If", host=(0,))
def if_(node: Node, condition: Tensor, *, outer: ValueScope, context: CallContext) -> tuple[Any, ...]:
    body = node.bodies["then_branch" if bool(condition) else "else_branch"]
    return tuple(body.results({}, context, outer))


@op("Loop", host=(0, 1))
def loop(
    node: Node, limit: Tensor | None, condition: Tensor | None, *carried: Any, outer: ValueScope, context: CallContext
) -> tuple[Any, ...]:
    body, rows = node.bodies["body"], None if limit is None else int(limit)
    stacked: list[list[Tensor]] = [[] for _ in body.outputs[1 + len(carried) :]]
    alive, step = condition is None or bool(condition), 0
    while alive and (rows is None or step < rows):
        given = [torch.tensor(step), torch.tensor(data=True), *carried]
        results = body.results(dict(zip(body.inputs, given, strict=True)), context, outer)
        alive, carried = bool(results[0]), tuple(results[1 : 1 + len(carried)])
        for rows_of, row in zip(stacked, results[1 + len(carried) :], strict=True):
            rows_of.append(row)
        step += 1
    empty = body.output_types[1 + len(carried) :]
    return (*carried, *(torch.stack(one) if one else missing.empty() for one, missing in zip(stacked, empty, strict=True)))


@op("Scan", since=9)
def scan(node: Node, *inputs: Any, outer: ValueScope, context: CallContext) -> tuple[Any, ...]:
    """States, then sequences; each sequence is read along its axis, and each output stacked along its own."""
    body, count = node.bodies["body"], node.attr("num_scan_inputs")
    states, sequences = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    axes, ways = node.attr("scan_input_axes", [0] * count), node.attr("scan_input_directions", [0] * count)
    lines = [x.unbind(axis)[:: -1 if way else 1] for x, axis, way in zip(sequences, axes, ways, strict=True)]
    extra = len(body.outputs) - len(states)
    stacked: list[list[Tensor]] = [[] for _ in range(extra)]
    for given in zip(*lines, strict=True):
        results = body.results(dict(zip(body.inputs, [*states, *given], strict=True)), context, outer)
        states = tuple(results[: len(states)])
        for rows, row in zip(stacked, results[len(states) :], strict=True):
            rows.append(row)
    axes, ways = node.attr("scan_output_axes", [0] * extra), node.attr("scan_output_directions", [0] * extra)
    empty = body.output_types[len(states) :]
    outputs = [
        torch.stack(rows[:: -1 if way else 1], axis if axis >= 0 else axis + rows[0].dim() + 1) if rows else missing.empty()
        for rows, axis, way, missing in zip(stacked, axes, ways, empty, strict=True)
    ]
    return (*states, *outputs)
