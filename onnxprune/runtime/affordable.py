"""Which constants may be computed: a few numbers in a file can ask for any amount of memory and time.

The sizes of results follow from shape inference, before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.subgraph import subgraph
from onnxprune.ir.validate import at_most

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["affordable"]

_INSIDE = 1024
"""Elements up to which constants may say sizes; of larger ones only the shape is told."""
_TRIPS = 1 << 12
"""Iterations of a loop that is computed."""


def affordable(model: ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> bool | None:
    """Tell whether nodes may be run on constants; ``None`` where shape inference cannot say how large the results are.

    Args:
        model: its operator sets say what the nodes mean.
        nodes: in topological order; they read only the constants and each other.
        constants: by name.
    """
    if any(node.op_type in {"Loop", "Scan"} and not _short(node, constants) for node in nodes):
        return False
    made = [name for node in nodes for name in node.output if name]
    read = {name for node in nodes for name in node.input}
    proto = subgraph(model, nodes, [], made)
    given = 0
    for name in read & constants.keys():
        value = np.asarray(constants[name])
        given += value.nbytes
        if value.size <= _INSIDE:
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
        else:
            dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
            proto.graph.input.append(helper.make_tensor_value_info(name, dtype, value.shape))
    try:
        graph = infer_shapes(proto, sizes=True)
    except ModelError:
        return None
    total = sum(_nbytes(value.type.tensor_type) for value in typed_values(graph) if value.name in set(made))
    return None if math.isnan(total) else total <= at_most(given)


def _short(node: NodeProto, constants: Mapping[str, Array]) -> bool:
    """Tell whether a loop is known to run only a few times."""
    trips = constants.get(node.input[0]) if node.op_type == "Loop" and node.input[0] else None
    return trips is not None and bool((trips <= _TRIPS).all())


def _nbytes(tensor: TypeProto.Tensor) -> float:
    """Bytes of a value; not a number where its shape is not known."""
    if not tensor.HasField("shape") or not tensor.elem_type or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return math.nan
    return float(
        math.prod(dim.dim_value for dim in tensor.shape.dim) * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    )
