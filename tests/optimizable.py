"""A small network to make faster, and clocks that do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.base import Ground
from onnxprune.driver.optimize import Clock
from onnxprune.driver.progress import Stages
from onnxprune.ir.model import Model
from onnxprune.latency.node_times import NodeTime
from onnxprune.options.optimize import OptimizeRecipe

X = np.random.default_rng(0).standard_normal((96, 3, 8, 8)).astype(np.float32)
BODY = """{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    ra = Relu (a)
    b = Conv <pads = [1, 1, 1, 1]> (ra, w2, b2)
    rb = Relu (b)
    c = Conv <pads = [1, 1, 1, 1]> (rb, w3, b3)
    rc = Relu (c)
    p = GlobalAveragePool (rc)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w4, b4)
}"""
WEIGHTS = (
    "float[32,3,3,3] w1, float[32] b1, float[32,32,3,3] w2, float[32] b2, float[48,32,3,3] w3, float[48] b3, "
    "float[10,48] w4, float[10] b4"
)
LINEAR = ("first", "second", "third", "last")


def net() -> ModelProto:
    """Three convolutions and a classifier, whose linear nodes are called as `LINEAR`."""
    proto = parse(f"(float[N, 3, 8, 8] x) => (float[N, 10] y) <{WEIGHTS}> {BODY}")
    names = iter(LINEAR)
    for node in proto.graph.node:
        node.name = next(names) if node.op_type in {"Conv", "Gemm"} else f"after_{node.output[0]}"
    return proto


def cost(model: Model, share: float) -> float:
    """The elements of weights; those in int8 count by a share."""
    return sum(weight.size * (1.0 if weight.is_float else share) for weight in model.weights.values())


def clock(int8: float = 0.5, slow: Sequence[str] = ()) -> Clock:
    """A clock by which int8 takes a share of the time of float32, except in nodes that are twice as slow there."""

    def ratios(original: Model, models: Sequence[Model], _: float) -> list[float]:
        return [cost(model, int8) / cost(original, int8) for model in models]

    def nodes(model: Model) -> list[NodeTime]:
        rounded = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        border = [NodeTime("x_QuantizeLinear", "QuantizeLinear", 0.01, 1000)] if rounded else []
        rates = {name: (2.0 if name in slow else int8) if rounded else 1.0 for name in LINEAR}
        return [*border, *(NodeTime(f"{name}_quant", "Conv", rate, 4000) for name, rate in rates.items())]

    return Clock(ratios, nodes)


GROUNDS: list[Ground] = []
"""Those that `closed` closes."""


@pytest.fixture
def closed() -> Iterator[None]:
    """Closes after a test what levers opened on every `ground`."""
    yield
    for one in GROUNDS:
        one.stack.close()
    GROUNDS.clear()


def ground(recipe: OptimizeRecipe | None = None, timed: Clock | None = None, proto: ModelProto | None = None) -> Ground:
    model = Model.of(proto or net())
    samples = open_samples({"x": X[:64]}, model.inputs)
    GROUNDS.append(Ground(model, recipe or OptimizeRecipe(), samples, Stages(), (timed or clock()).nodes))
    return GROUNDS[-1]


def takes(tensor: TensorProto) -> float:
    """The milliseconds of a constant: by its elements, in int8 by those of whole blocks of 16 channels."""
    sizes = np.array(tensor.dims)
    return 1e-3 * float(np.prod(16 * np.ceil(sizes / 16) if tensor.data_type == TensorProto.INT8 else sizes))


def steady_table(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latency table of a machine whose time is that of all constants."""

    def timer(*_: object) -> Callable[[Sequence[ModelProto]], list[float | None]]:
        return lambda models: [sum(map(takes, model.graph.initializer)) + 1e-3 for model in models]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("onnxprune.latency.profiler.OrtTimer", timer)


def calib() -> list[dict[str, np.ndarray]]:
    """Samples, as ``optimizable:calib`` names them."""
    return [{"x": X[:72]}]


def judges() -> list[dict[str, np.ndarray]]:
    """Others."""
    return [{"x": X[72:]}]
