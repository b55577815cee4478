"""What each layer loses in int8: the noise that its own rounding adds to what it outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import QDQ
from onnxprune.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.data.samples import Samples

__all__ = ["rounding_noise"]

_COUNT, _BATCH = 64, 8
"""Samples that noise is measured on, at least, and at a time."""
_ROUNDED, _GAP = "__rounded", "__gap"


def rounding_noise(prepared: Model, quantized: Model, names: Sequence[str], samples: Samples) -> dict[str, float]:
    """For nodes by name the squared error of their outputs in int8 over the squares of what they output; one forward pass.

    Every node reads what the model in floating point gives it, so that an error is of its own rounding: of its weights, its bias
    and the activations that it reads.

    Args:
        prepared: the model in floating point that was quantised.
        quantized: the same with ``QuantizeLinear`` and ``DequantizeLinear``.
        names: nodes of both; others are left out.
        samples: what is run.

    Raises:
        ModelError: ONNX Runtime does not run both side by side.
    """
    twin, found = _side_by_side(prepared, quantized, names)
    if not found:
        return {}
    outputs = [_total(name, which) for name in found for which in (_GAP, "")]
    session = Session(twin, outputs, threads=0)
    totals, taken = np.zeros(len(outputs)), 0
    for batch in samples.batches(_BATCH):
        totals += np.array([float(value) for value in session.run(batch.feeds)])
        taken += batch.size
        if taken >= _COUNT:
            break
    gaps, squares = totals[::2], totals[1::2]
    return {name: float(gap / square) if square else 0.0 for name, gap, square in zip(found, gaps, squares, strict=True)}


def _side_by_side(prepared: Model, quantized: Model, names: Sequence[str]) -> tuple[Model, list[str]]:
    """The model in floating point, in which nodes also compute in int8; with which of them do."""
    plain = {node.name: node for node in prepared.graph.node}
    known = {value.name for value in prepared.graph.input} | prepared.weights.keys() | quantized.weights.keys()
    known |= {name for node in prepared.graph.node for name in node.output}
    added: list[NodeProto] = []
    found: list[str] = []
    renamed: dict[str, str] = {}
    wanted = set(names) & plain.keys()
    for node in quantized.graph.node:
        if node.op_type not in QDQ and node.name not in wanted:
            continue
        read = [renamed.get(name, name) for name in node.input]
        if any(name and name not in known for name in read):
            continue  # of a value that the model in floating point has not
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = read, [f"{name}{_ROUNDED}" for name in node.output]
        copy.name = f"{node.name}{_ROUNDED}"
        added.append(copy)
        if node.op_type in QDQ:
            known |= set(copy.output)
            renamed |= dict(zip(node.output, copy.output, strict=True))
        else:
            found.append(node.name)
            added += _measured(node.name, plain[node.name].output[0], copy.output[0])
    proto = quantized.copy().proto
    del proto.graph.node[:], proto.graph.value_info[:]
    proto.graph.node.extend([*prepared.graph.node, *added])
    proto.graph.output.extend(ValueInfoProto(name=_total(name, which)) for name in found for which in (_GAP, ""))
    return Model(proto, {**quantized.weights, **prepared.weights}, prepared.name), found


def _total(name: str, which: str) -> str:
    return f"onnxprune:{name}{which}"


def _measured(name: str, output: str, rounded: str) -> list[NodeProto]:
    """The nodes that sum up the squares of an output, and of its error."""
    gap = f"{rounded}{_GAP}"
    return [
        helper.make_node("Sub", [output, rounded], [gap]),
        helper.make_node("ReduceSumSquare", [gap], [_total(name, _GAP)], keepdims=0),
        helper.make_node("ReduceSumSquare", [output], [_total(name, "")], keepdims=0),
    ]
