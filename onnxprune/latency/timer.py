"""Milliseconds of models in ONNX Runtime: of many small ones, and of two large ones side by side.

`onnxprune.latency.stopwatch` takes the times of small ones, and its clock is that of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.weights import Weight
from onnxprune.latency.inputs import SessionInput, make_feeds, resolve_shapes, session_inputs
from onnxprune.latency.interleave import Quartiles, TimedRun, interleave, quartiles
from onnxprune.latency.providers import bind_session, error_text, open_session, require_provider
from onnxprune.latency.stopwatch import clock, least, ready, stand_in
from onnxprune.runtime.session import lend
from onnxprune.runtime.stopping import run_options

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = [
    "OrtTimer",
    "Timer",
    "furnished",
    "has_data",
    "loaded",
    "measure_ratio",
    "measure_ratios",
    "measure_spreads",
    "yardstick",
]


Timer = Callable[[Sequence[ModelProto]], list[float | None]]
"""The milliseconds of one run of each model, ``None`` of one that does not run.

Constants without data may hold anything; the size of each symbol is in the metadata.
"""

_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


@dataclass(frozen=True, slots=True)
class OrtTimer:
    """Times models as `benchmark` would: with the same optimisation, and inputs and outputs that stay on the device."""

    provider: str = "cpu"
    threads: int = 1

    def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
        """The least milliseconds of one run of each; all are in memory at once."""
        return least([self._load(model) for model in models], clock(self.provider, self.threads))

    def _load(self, model: ModelProto) -> TimedRun | None:
        """The model, ready to run; ``None`` if ONNX Runtime does not run it."""
        proto, weights = _furnish(model)
        lent = lend(proto, weights)
        try:
            data = proto.SerializeToString()
            session = open_session(data, label="segment", provider=self.provider, threads=self.threads, lent=lent)
            return ready(session, lent, _device(self.provider), run_options())
        except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
            return None


def _device(provider: str) -> str:
    return "cpu" if provider == "cpu" else "cuda"


def _bound(
    session: Any,
    inputs: Sequence[SessionInput],
    shapes: Mapping[str, Sequence[int]],
    provider: str,
    lent: Mapping[str, Any],
) -> TimedRun:
    """A function that runs a session so many times; it holds the weights that the session was lent."""
    run = bind_session(session, inputs, make_feeds(inputs, shapes, seed=0), _device(provider))

    def bound(times: int, _held: Mapping[str, Any] = lent) -> None:
        run(times)

    return bound


def _furnish(model: ModelProto) -> tuple[ModelProto, list[Weight]]:
    """The model without its constants that have no data, and those with data."""
    proto = ModelProto()
    proto.CopyFrom(model)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensor for tensor in model.graph.initializer if has_data(tensor))
    rng = np.random.default_rng(0)
    return proto, [furnished(tensor, rng) for tensor in model.graph.initializer if not has_data(tensor)]


def has_data(tensor: TensorProto) -> bool:
    """Whether a constant has the data that it has in the model, or stands for any of its shape."""
    return any(getattr(tensor, data) for data in _DATA)


def furnished(tensor: TensorProto, rng: np.random.Generator) -> Weight:
    """A constant without data as one with data: positive floats below 1, zero integers."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return Weight(tensor.name, None, stand_in(dtype, tuple(tensor.dims), rng))


def yardstick() -> ModelProto:
    """A convolution of well-known cost, which tells a quick moment of the machine from a slow one."""
    floats = TensorProto.FLOAT
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    inputs = [helper.make_tensor_value_info("x", floats, [1, 64, 14, 14])]
    outputs = [helper.make_tensor_value_info("y", floats, [1, 64, 14, 14])]
    graph = helper.make_graph(
        [node], "yardstick", inputs, outputs, [TensorProto(name="w", data_type=floats, dims=[64, 64, 3, 3])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def measure_ratio(original: Model, candidate: Model, **settings: Any) -> float:
    """The latency of one candidate; see `measure_ratios`."""
    return measure_ratios(original, [candidate], **settings)[0]


def measure_ratios(original: Model, candidates: Sequence[Model], **settings: Any) -> list[float]:
    """The latency of candidates as a fraction of the original's: the medians of `measure_spreads`."""
    return [spread.median for spread in measure_spreads(original, candidates, **settings)]


def measure_spreads(
    original: Model,
    candidates: Sequence[Model],
    *,
    seconds: float = 2.0,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[Quartiles]:
    """The latency of candidates as a fraction of the original's: median and quartiles over rounds in which all take turns.

    ``seconds`` is the time for each of them; ``batch`` and ``shapes`` set open sizes as in `benchmark`. Without
    ``shapes`` these are what the original knows of them, from the user and from samples.

    Raises:
        ModelError: ONNX Runtime does not load or run one of them.
        OptionError: ``shapes`` leaves a size open that has no plausible default.
        ProviderError: this machine does not have the provider.
    """
    if threads < 1 or not seconds >= 0:
        raise OptionError(f"threads must be 1 or more and seconds not negative: {threads}, {seconds}")
    require_provider(provider)
    shapes = shapes or original.sizes.shapes(original.inputs)
    runs = [loaded(model, provider, threads, batch, shapes)[0] for model in (original, *candidates)]
    first, *others = interleave(runs, clock=clock(provider, threads), seconds=seconds, min_rounds=10, warmup=3)
    return [quartiles([b / a for a, b in zip(first, other, strict=True)]) for other in others]


def loaded(
    model: Model, provider: str, threads: int, batch: int, shapes: Mapping[str, Sequence[int]], profile: str = ""
) -> tuple[TimedRun, Any]:
    """A model that has run once, ready to run again, and its session; ``profile`` as `open_session` takes it.

    Raises:
        ModelError: ONNX Runtime does not load or run it.
        OptionError: ``shapes`` leaves a size open that has no plausible default.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    lent = lend(proto, model.weights.values())
    data = proto.SerializeToString()
    session = open_session(data, label=model.name, provider=provider, threads=threads, lent=lent, profile=profile)
    inputs = session_inputs(session)
    run = _bound(session, inputs, resolve_shapes(inputs, batch, shapes).shapes, provider, lent)
    try:
        run(1)
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise ModelError(f"ONNX Runtime cannot run {model.name} on {provider}: {error_text(error)}") from error
    return run, session
