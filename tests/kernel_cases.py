"""Nodes of the sparse kernels, drawn at random, with what they must compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
HEIGHTS = (1, 2, 4, 8, 16)
TOLERANCE = 1e-5
"""Of outputs, relative to the largest: kernels add in another order, nothing else differs."""


@dataclass(frozen=True)
class Case:
    """A node of our domain, the standard operator that it begins with, and what it is fed.

    Attributes:
        operator: in our domain.
        standard: the standard operator.
        weights: its constants.
        feeds: its inputs.
        order: the names of all that it reads.
        attributes: of both operators.
    """

    operator: str
    standard: str
    weights: Mapping[str, Array]
    feeds: Mapping[str, Array]
    order: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def model(self, operator: str, order: Sequence[str]) -> bytes:
        """A model of one node."""
        domain = "onnxprune" if operator.startswith("Sparse") else ""
        node = helper.make_node(operator, order, ["y"], domain=domain, **self.attributes)
        fed = [name for name in order if name in self.feeds]
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * self.feeds[name].ndim) for name in fed]
        constants = [numpy_helper.from_array(self.weights[name], name) for name in order if name in self.weights]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "g", inputs, [output], constants)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("onnxprune", 1)]
        data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        return data

    def expected(self) -> Array:
        """What ONNX Runtime computes with dense kernels, and numpy of what follows."""
        order = [name for name in self.order if name in {"x", "w", "b"}]
        bias = self.standard == "MatMul" and "b" in order
        session = ort.InferenceSession(self.model(self.standard, order[:2] if bias else order))
        result: Array = session.run(None, {"x": self.feeds["x"]})[0]
        result = result + self.weights["b"] if bias else result
        result = result + self.feeds["z"] if "z" in self.feeds else result
        low = self.weights.get("low", np.float32(0 if self.operator.endswith("Relu") else -np.inf))
        high = self.weights.get("high", np.float32(np.inf))
        return np.minimum(np.maximum(result, low), high)

    def run(self, library: Path, threads: int = 1) -> Array:
        """What the kernel computes."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # each tensor has memory of its own, which a sanitizer watches
        options.register_custom_ops_library(str(library))
        result: Array = ort.InferenceSession(self.model(self.operator, self.order), options).run(None, dict(self.feeds))[0]
        return result


def blocks(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A matrix with blocks of zeros of some height, all of it perhaps zero or none. [rows, columns]"""
    height, density = int(rng.choice(HEIGHTS)), rng.choice([0, 0.05, 0.2, 0.5, 1])
    kept = rng.random((-(-rows // height), columns)) < density
    values: Array = rng.standard_normal((rows, columns)).astype(np.float32)
    values[~np.repeat(kept, height, axis=0)[:rows]] = 0
    return values


def convolution(rng: np.random.Generator) -> Case:
    """A convolution over one or two axes."""
    while True:
        axes, groups = int(rng.integers(1, 3)), int(rng.choice([1, 1, 1, 2, 3]))
        inputs, outputs = int(rng.integers(1, 40)), int(rng.integers(1, 50)) * groups
        kernel = rng.choice([1, 1, 2, 3, 5, 7], axes)
        strides, dilations = rng.integers(1, 4, axes), rng.integers(1, 3, axes)
        pads, sizes = rng.integers(0, 4, 2 * axes), rng.integers(1, 40, axes)
        room = sizes + pads[:axes] + pads[axes:] - (kernel - 1) * dilations - 1
        if (room >= 0).all():
            break
    numbers = {"strides": strides, "dilations": dilations, "pads": pads}
    attributes = {name: value.tolist() for name, value in numbers.items()} | {"group": groups}
    shape = (int(rng.integers(1, 3)), outputs, *(room // strides + 1))
    weight = blocks(rng, outputs, inputs * int(np.prod(kernel))).reshape(outputs, inputs, *kernel)
    weights = {"w": weight, "b": rng.standard_normal(outputs).astype(np.float32)}
    feeds = {"x": rng.standard_normal((shape[0], inputs * groups, *sizes)).astype(np.float32)}
    name, order = "SparseConv", ["x", "w", "b"]
    if rng.random() < 0.5:
        name, order = f"{name}Add", [*order, "z"]
        feeds["z"] = rng.standard_normal(shape).astype(np.float32)
    bound = str(rng.choice(["", "Relu", "Clip"]))
    if bound == "Clip":
        weights |= {"low": np.array(-0.5, np.float32), "high": np.array(1.5, np.float32)}
        order += ["low", "high"]
    return Case(name + bound, "Conv", weights, feeds, order, attributes)


def product(rng: np.random.Generator) -> Case:
    """A matrix product of one token or many."""
    columns, rows, tokens = (
        int(n) for n in (rng.integers(1, 300), rng.integers(1, 200), rng.choice([1, 2, 3, 4, 5, 17, 64, 65, 130]))
    )
    weight, bound = blocks(rng, rows, columns), str(rng.choice(["", "Relu"]))
    bias = rng.standard_normal(rows).astype(np.float32)
    if rng.random() < 0.5:
        transposed = int(rng.integers(0, 2))
        weight = weight if transposed else weight.T.copy()
        feeds = {"x": rng.standard_normal((tokens, columns)).astype(np.float32)}
        return Case(f"SparseGemm{bound}", "Gemm", {"w": weight, "b": bias}, feeds, ["x", "w", "b"], {"transB": transposed})
    feeds = {"x": rng.standard_normal((*([2] * int(rng.integers(0, 2))), tokens, columns)).astype(np.float32)}
    adds = bool(rng.random() < 0.5)
    weights = {"w": weight.T.copy()} | ({"b": bias} if adds else {})
    return Case(f"SparseMatMul{'Add' * adds}{bound}", "MatMul", weights, feeds, ["x", "w", "b"][: 2 + adds])


def of_every_half(height: int, tokens: int) -> tuple[Case, Array]:
    """A large product whose weights are the numbers of float16, all that are finite; each token reads a row of them as it is."""
    rng = np.random.default_rng(0)
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    weight = np.resize(numbers[np.isfinite(numbers)], (64, 8192)).astype(np.float32)
    weight *= (rng.random((64, 8192 // height)) < 0.6).repeat(height, axis=1)
    rows = rng.integers(0, 64, tokens)
    feeds = {"x": (np.arange(64) == rows[:, None]).astype(np.float32)}
    return Case("SparseMatMul", "MatMul", {"w": weight}, feeds, ["x", "w"]), weight[rows]


def error(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest number that was expected."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-6))
