"""Commands write the same bytes with any number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from command import ENV

SIZES = {"a": (24, 3, 3, 3), "b": (24, 24, 3, 3), "c": (24, 10)}
NODES = """
    h = Conv <pads = [1, 1, 1, 1]> (x, a) r = Softplus (h) k = Conv <pads = [1, 1, 1, 1]> (r, b) e = Elu (k)
    p = GlobalAveragePool (e) f = Flatten (p) y = MatMul (f, c)
"""
COMMANDS = {
    "prune": ("prune", "net.onnx", "--target", "macs=0.6", "--no-benchmark"),
    "prune with samples": ("prune", "net.onnx", "--target", "macs=0.6", "--no-benchmark", "--calib", "s.npz"),
    "sparsify": ("sparsify", "net.onnx", "--sparsity", "0.5", "--calib", "s.npz"),
    "quantize": ("quantize", "net.onnx", "--calib", "s.npz"),
    "encode": ("encode", "sparse.onnx"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose sums, and elements at the ends of its threads, round otherwise when they are cut elsewhere."""
    place, rng = tmp_path_factory.mktemp("nets"), np.random.default_rng(0)
    text = f'<ir_version: 9, opset_import: ["" : 18]> g (float[n, 3, 17, 19] x) => (float[n, 10] y) {{ {NODES} }}'
    for name, share in (("net", 1.0), ("sparse", 0.3)):
        model = onnx.parser.parse_model(text)
        for weight, shape in SIZES.items():
            values = rng.standard_normal(shape, np.float32) * (rng.random(shape) < share) / np.sqrt(np.prod(shape[1:]))
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
        onnx.save(model, place / f"{name}.onnx")
    np.savez(place / "s.npz", x=rng.standard_normal((64, 3, 17, 19), np.float32))
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_the_number_of_threads_changes_no_byte(folder: Path, name: str) -> None:
    plain = {key: value for key, value in ENV.items() if not key.endswith("_THREADS")}
    found = set()
    for count in (1, 3):
        out = f"{name} {count}.onnx"
        command = [sys.executable, "-m", "onnxprune", *COMMANDS[name], "-o", out, "--threads", str(count)]
        subprocess.run(command, check=True, capture_output=True, env=plain, cwd=folder)
        found.add(hashlib.sha256((folder / out).read_bytes()).hexdigest())
    assert len(found) == 1, f"{len(found)} files on {os.cpu_count()} cores"
