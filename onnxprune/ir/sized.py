"""Shape inference without sizes that are less than nothing.

A window that is larger than what it moves over leaves, by the standard's formula, a negative number of places. Inference of
`Slice` takes that for a size, and onnx ends the process (an assertion of the C++ library in its wheels from 1.19 on). A guard in
front of such a slice has no shape where a size is negative: what comes after it is unknown, and nothing ends.

>>> # Conv with 512 taps over 16 samples, then x[..., 1:]: (16 - 512) / 1 + 1 = -495 places
"""

from __future__ import annotations

from functools import cache
from typing import Any

from onnx import GraphProto, ModelProto, defs, helper

from onnxprune.ir.node import domain_of, every_graph, subgraphs

__all__ = ["guarded", "is_guard"]

_DOMAIN, _GUARD = "onnxprune.inference", "NotNegative"
_MARK = "//not negative"
"""What the name of a guard's output ends with; no exporter writes it."""
_MAY_BE_NEGATIVE = frozenset({
    "AveragePool", "Col2Im", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "LpPool", "MaxPool", "MaxUnpool", "Pad",
    "QLinearConv", "STFT",
})  # fmt: skip
_NUMBERS = frozenset({"Shape", "Size"})
"""Operators whose outputs are sizes, and have none."""


def is_guard(name: str) -> bool:
    """Tell whether a value is one that a guard makes."""
    return name.endswith(_MARK)


def guarded(proto: ModelProto) -> ModelProto:
    """The model with a guard before each slice that may have a negative size; itself where there is none."""
    reached = _slices_after_windows(proto.graph, set()) if _can_guard() else set()
    if not reached:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for graph in every_graph(copy.graph):
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            if node.op_type == "Slice" and node.output[0] in reached:
                name = f"{node.output[0]}{_MARK}"
                graph.node.append(helper.make_node(_GUARD, [node.input[0]], [name], domain=_DOMAIN))
                node.input[0] = name
            graph.node.append(node)
    copy.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return copy


def _slices_after_windows(graph: GraphProto, after: set[str]) -> set[str]:
    """The outputs of slices of what windows have left, in bodies too; adds to ``after`` all values that come after a window."""
    found: set[str] = set()
    for node in graph.node:
        for body in subgraphs(node):
            found |= _slices_after_windows(body, after)
            if not after.isdisjoint(value.name for value in body.output):
                after.update(node.output)
        if node.op_type in _NUMBERS or after.isdisjoint(node.input):
            if node.op_type in _MAY_BE_NEGATIVE and not domain_of(node):
                after.update(node.output)
            continue
        after.update(node.output)
        if node.op_type == "Slice" and not domain_of(node) and node.input[0] in after:
            found.add(node.output[0])
    return found


@cache
def _can_guard() -> bool:
    """Tell whether onnx knows the guard, which is made known to it; releases before 1.19 need none."""
    if not hasattr(defs.OpSchema, "set_type_and_shape_inference_function"):
        return False
    parameter = defs.OpSchema.FormalParameter
    schema = defs.OpSchema(
        _GUARD,
        _DOMAIN,
        1,
        "The input, which has a shape only where no size is negative.",
        inputs=[parameter("x", "T")],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", list(defs.get_schema("Identity").type_constraints[0].allowed_type_strs), "any")],
    )
    schema.set_type_and_shape_inference_function(_infer)
    defs.register_schema(schema)
    return True


def _infer(context: Any) -> None:
    value = context.get_input_type(0)
    dims = value.tensor_type.shape.dim if value is not None else ()
    if value is not None and not any(dim.HasField("dim_value") and dim.dim_value < 0 for dim in dims):
        context.set_output_type(0, value)
