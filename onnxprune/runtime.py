"""ONNX Runtime, as the compiler uses it: sessions, feeds, evaluation of constants.

The only module besides the benchmark that imports onnxruntime, and only when a session is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnxruntime
    from onnx import OperatorSetIdProto, ValueInfoProto

    from onnxprune.equation import Shape
    from onnxprune.model import Array, Model

__all__ = ["evaluate", "random_feeds", "run_for_shapes", "session"]


def session(proto: ModelProto | bytes, name: str = "<model>", *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU that prints nothing.

    Raises:
        ModelError: ONNX Runtime does not accept the model.
    """
    import onnxruntime as ort  # 0.1 s; only what runs a model needs it

    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_EXTENDED if optimize else level.ORT_DISABLE_ALL
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise ModelError(f"{name}: ONNX Runtime does not load it: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def evaluate(
    nodes: Sequence[NodeProto], constants: Mapping[str, Array], opsets: Iterable[OperatorSetIdProto], ir_version: int
) -> dict[str, Array]:
    """What nodes compute from constants alone, for every output of theirs that ONNX Runtime can compute.

    ``nodes`` are in topological order, and read only ``constants`` and each other.
    """
    wanted = [name for node in nodes for name in node.output if name]
    read = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read]
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    graph = helper.make_graph(nodes, "constants", [], outputs, tensors)
    proto = helper.make_model(graph, opset_imports=list(opsets), ir_version=max(ir_version, 4))
    try:
        return dict(zip(wanted, session(proto, optimize=False).run(None, {}), strict=True))
    except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        if len(nodes) == 1:
            return {}
    known = dict(constants)
    for node in nodes:  # one that cannot be computed must not hide the others
        if all(name in known for name in node.input if name):
            known |= evaluate([node], known, opsets, ir_version)
    return {name: known[name] for name in wanted if name in known}


def run_for_shapes(model: Model, inputs: Mapping[str, Shape], missing: Sequence[str]) -> dict[str, Shape | None]:
    """Run the model on a probe and report the shapes of ``missing``.

    Shapes that still do not come out (the model does not run on the probe, a value is no tensor) are left out.
    """
    proto = model.to_proto()
    del proto.graph.output[:]
    wanted = {name: model.fresh_name(f"{name}__shape") for name in missing}
    for name, shape in wanted.items():
        proto.graph.node.append(helper.make_node("Shape", [name], [shape]))
        proto.graph.output.append(helper.make_tensor_value_info(shape, TensorProto.INT64, None))
    feeds = random_feeds(model.inputs, inputs, seed=0)
    try:
        results = session(proto, model.name, optimize=False).run(None, feeds)
    except Exception:  # noqa: BLE001 - as above
        return {}
    return {name: tuple(map(int, shape)) for name, shape in zip(wanted, results, strict=True)}


def random_feeds(inputs: Sequence[ValueInfoProto], shapes: Mapping[str, Shape], seed: int) -> dict[str, Array]:
    """Seeded inputs: standard normal floats; integers and booleans from {0, 1}, valid as indices nearly everywhere."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for value in inputs:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = shapes[value.name]
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            feeds[value.name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype == np.object_:
            feeds[value.name] = np.full(shape, "", dtype=object)
        else:
            feeds[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
    return feeds
