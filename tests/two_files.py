"""Models in two files, and what is there afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def chain(rows: int = 64, seed: int = 0) -> onnx.ModelProto:
    """Three products with matrices [rows, rows] and a bias, which is small."""
    rng = np.random.default_rng(seed)
    tensors = [numpy_helper.from_array(rng.standard_normal((rows, rows), np.float32), f"w{n}") for n in range(3)]
    tensors.append(numpy_helper.from_array(rng.standard_normal(rows, np.float32), "bias"))
    values = ["x", "a", "b", "c"]
    nodes = [helper.make_node("MatMul", [values[n], f"w{n}"], [values[n + 1]]) for n in range(3)]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["c", "bias"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", rows])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def weights(path: Path) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def outside(path: Path, array: Any, location: str = "data.bin", skip: int = 0, **keys: int) -> Path:
    """A model with one weight in a data file, after some other bytes."""
    tensor = numpy_helper.from_array(array, "w")
    (path.parent / "data.bin").write_bytes(b"\xff" * skip + tensor.raw_data)
    entries = {"location": location, **({"offset": skip} if skip else {}), **keys}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { y = Relu(x) }')
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    return path
