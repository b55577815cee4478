"""Helpers for tests of training: small nets, checkpoints that kill a run, and commands of two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from onnxprune.ir.model import Model
from onnxprune.training.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "models" / "digits.onnx"


def graph(source: str) -> onnx.ModelProto:
    """A model from ONNX text."""
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {source}')


def filled(source: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """A model from ONNX text, with weights drawn from the normal distribution."""
    proto, rng = graph(source), np.random.default_rng(0)
    for name, shape in shapes.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return proto


def perceptron(width: int, seed: int = 0) -> onnx.ModelProto:
    """A perceptron of 6 inputs, two hidden layers (u and a, v and b) and 3 outputs (w, without a bias)."""
    proto = graph(
        "(float[N,6] x) => (float[N,3] y) { h = Gemm(x, u, a) r = Relu(h) i = Gemm(r, v, b) s = Relu(i) y = MatMul(s, w) }"
    )
    rng = np.random.default_rng(seed)
    for name, shape in {"u": (6, width), "a": (width,), "v": (width, width), "b": (width,), "w": (width, 3)}.items():
        array = rng.normal(size=shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def images(count: int = 48) -> dict[str, np.ndarray]:
    """Random images for the net of digits, and labels."""
    rng = np.random.default_rng(0)
    return {"x": rng.random((count, 1, 8, 8), np.float32), "label": rng.integers(10, size=count)}


def sparse(share: float) -> onnx.ModelProto:
    """The digits with the smallest weights of each layer zero."""
    model = Model.of(DIGITS)
    proto = model.to_proto()
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.ndim > 1 and array.dtype == np.float32:
            array[np.abs(array) < np.quantile(np.abs(array), share)] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return proto


class KilledError(Exception):
    """Raised by `Dying`: the run is killed."""


class Dying(Checkpoint):
    """Saves after every step, and raises `KilledError` after ``left`` saves, counted over all instances."""

    left = 0

    @property
    def due(self) -> bool:
        return True

    def save(self, state: Mapping[str, Any]) -> None:
        super().save(state)
        Dying.left -= 1
        if Dying.left == 0:
            raise KilledError


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def in_two_processes(*words: object, cwd: Path) -> dict[str, Any]:
    """The report of a command that two processes of `accelerate launch` carry out together, on the CPU."""
    # As for two GPUs: with --cpu accelerate starts one process, unless MPI starts more.
    how = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    launch = ("accelerate.commands.launch", *how, "--main_process_port", str(_free_port()), "-m", "onnxprune")
    command = [sys.executable, "-m", *launch, *map(str, words), "--device", "cpu", "--json"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report
