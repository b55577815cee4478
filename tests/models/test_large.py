"""Models with external data pass through tensor by tensor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

WIDTH = 4096
MEASURED = """
import sys
from pathlib import Path
from onnxprune.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()  # getrusage begins with the peak of the process that forked this one
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def write(path: Path, layers: int) -> None:
    """A chain of square layers, 64 MiB each, in one data file."""
    nodes, tensors, value = [], [], "x"
    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), np.float32) * np.float32((2 / WIDTH) ** 0.5)
    with path.with_suffix(".data").open("wb") as file:
        for layer in range(layers):
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            tensor.data_location = TensorProto.EXTERNAL
            for key, entry in (("location", path.with_suffix(".data").name), ("offset", file.tell()), ("length", weights.nbytes)):
                tensor.external_data.add(key=key, value=str(entry))
            file.write(weights.tobytes())
            tensors.append(tensor)
            nodes += [
                helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]),
                helper.make_node("Relu", [f"h{layer}"], [f"r{layer}"]),
            ]
            value = f"r{layer}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())


def peak(*args: object) -> int:
    """KiB of memory that a command takes at most."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *map(str, args)], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1])


@pytest.mark.slow
def test_memory_stays_below_the_size_of_the_model(tmp_path: Path) -> None:
    source, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    write(source, 12)
    args = ["prune", source, "-o", small, "--target", "channels=0.5", "--no-verify", "--no-benchmark"]
    size = 12 * WIDTH * WIDTH * 4 / 2**10  # KiB
    assert peak(*args) < 0.75 * size
    assert small.with_name("small.onnx.data").exists()
    session = ort.InferenceSession(small, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, WIDTH), np.float32)})[0].shape == (2, WIDTH)


@pytest.mark.slow
def test_memory_of_a_proof_stays_below_the_size_of_the_model(tmp_path: Path) -> None:
    source, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    write(source, 64)
    taken = peak("prune", source, "-o", small, "--target", "channels=0.5", "--no-benchmark", "--json")
    assert taken - peak("--help") < 1.5 * 2**20  # KiB; the model has 4 GiB
