"""Milliseconds of models in ONNX Runtime: of many small ones, and of two large ones side by side.

Small models are timed in short bursts, in turns, and the least time counts: what disturbs only ever adds. With one thread on
the CPU the clock is the thread's processor time, which other load does not touch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.weights import FLOATS, Weight
from onnxprune.latency.inputs import SessionInput, make_feeds, resolve_shapes, session_inputs
from onnxprune.latency.interleave import TimedRun, interleave, quartiles
from onnxprune.latency.providers import bind_session, error_text, open_session, require_provider
from onnxprune.runtime.session import lend

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["OrtTimer", "Timer", "loaded", "measure_ratio", "measure_ratios", "yardstick"]


Timer = Callable[[Sequence[ModelProto]], list[float | None]]
"""The milliseconds of one run of each model, ``None`` of one that does not run.

Constants without data may hold anything; the size of each symbol is in the metadata.
"""

_BURSTS = 5
_BURST = 0.002
"""Seconds of a burst, which is one run at least."""
_SLOW, _ENOUGH = 0.02, 2
"""Seconds of a run from which so many bursts are enough."""
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def _clock(provider: str, threads: int) -> Callable[[], float]:
    # Windows counts a thread's time in ticks of 16 ms.
    alone = provider == "cpu" and threads == 1 and sys.platform != "win32"
    return time.thread_time if alone else time.perf_counter


@dataclass(frozen=True, slots=True)
class OrtTimer:
    """Times models as `benchmark` would: with the same optimisation, and inputs and outputs that stay on the device."""

    provider: str = "cpu"
    threads: int = 1

    def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
        """The least milliseconds of one run of each; all are in memory at once."""
        runs = [self._load(model) for model in models]
        clock = _clock(self.provider, self.threads)
        samples: list[list[float]] = [[] for _ in runs]
        for burst in range(_BURSTS):
            for run, taken in zip(runs, samples, strict=True):
                if run is not None and (burst < _ENOUGH or min(taken) < _SLOW):
                    taken += _burst(run, clock)
        return [1e3 * min(taken) if taken else None for taken in samples]

    def _load(self, model: ModelProto) -> TimedRun | None:
        """The model, ready to run; ``None`` if ONNX Runtime does not run it."""
        proto, weights = _furnish(model)
        lent = lend(proto, weights)
        try:
            data = proto.SerializeToString()
            session = open_session(data, label="segment", provider=self.provider, threads=self.threads, lent=lent)
            inputs = session_inputs(session)
            sizes = {symbol.key: int(symbol.value) for symbol in model.metadata_props}
            shapes = {item.name: [dim if isinstance(dim, int) else sizes[str(dim)] for dim in item.dims] for item in inputs}
            run = _bound(session, inputs, shapes, self.provider, lent)
            run(1)
        except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
            return None
        return run


def _bound(
    session: Any,
    inputs: Sequence[SessionInput],
    shapes: Mapping[str, Sequence[int]],
    provider: str,
    lent: Mapping[str, Any],
) -> TimedRun:
    """A function that runs a session so many times; it holds the weights that the session was lent."""
    run = bind_session(session, inputs, make_feeds(inputs, shapes, seed=0), "cpu" if provider == "cpu" else "cuda")

    def bound(times: int, _held: Mapping[str, Any] = lent) -> None:
        run(times)

    return bound


def _burst(run: TimedRun, clock: Callable[[], float]) -> list[float]:
    """Seconds of single runs, after one that brings the weights into the caches."""
    run(1)
    taken: list[float] = []
    end = time.perf_counter() + _BURST
    while not taken or time.perf_counter() < end:
        start = clock()
        run(1)
        taken.append(clock() - start)
    return taken


def _furnish(model: ModelProto) -> tuple[ModelProto, list[Weight]]:
    """The model without its constants that have no data, and those with data: positive floats below 1, zero integers."""
    proto = ModelProto()
    proto.CopyFrom(model)
    del proto.graph.initializer[:]
    rng = np.random.default_rng(0)
    weights = []
    for tensor in model.graph.initializer:
        if any(getattr(tensor, data) for data in _DATA):
            proto.graph.initializer.append(tensor)
            continue
        dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
        floats = tensor.data_type in FLOATS
        values = rng.random(shape, np.float32) * 0.5 + 0.25 if floats else np.zeros(shape, np.float32)
        weights.append(Weight(tensor.name, None, values.astype(dtype, copy=False)))
    return proto, weights


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


def measure_ratios(
    original: Model,
    candidates: Sequence[Model],
    *,
    seconds: float = 2.0,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[float]:
    """The latency of candidates as a fraction of the original's: the median over rounds in which all take turns.

    ``seconds`` is the time for each of them; ``batch`` and ``shapes`` set open sizes as in `benchmark`.

    Raises:
        ModelError: ONNX Runtime does not load or run one of them.
        OptionError: ``shapes`` leaves a size open that has no plausible default.
        ProviderError: this machine does not have the provider.
    """
    if threads < 1 or not seconds >= 0:
        raise OptionError(f"threads must be 1 or more and seconds not negative: {threads}, {seconds}")
    require_provider(provider)
    runs = [loaded(model, provider, threads, batch, shapes or {})[0] for model in (original, *candidates)]
    clock = _clock(provider, threads)
    first, *others = interleave(runs, clock=clock, seconds=seconds, min_rounds=10, warmup=3)
    return [quartiles([b / a for a, b in zip(first, other, strict=True)]).median for other in others]


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
