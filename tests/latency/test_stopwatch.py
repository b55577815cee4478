"""Times of runs: the least counts; nothing here depends on how fast the machine is."""

from __future__ import annotations

import sys
import time
from unittest.mock import Mock

import numpy as np
import onnxruntime as ort
import pytest
from onnx import parser

from onnxprune.latency import stopwatch
from onnxprune.latency.stopwatch import bind, clock, draw, least, stand_in


def test_the_least_of_several_bursts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    bursts = iter([[0.004, 0.003], [0.5, 0.002], [0.9], [0.7], [0.6]])
    monkeypatch.setattr(stopwatch, "_burst", Mock(side_effect=bursts))
    assert least([lambda _: None, None], time.perf_counter) == [2.0, None]


def test_slow_models_run_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    bursts = iter([[0.3], [0.4]])
    monkeypatch.setattr(stopwatch, "_burst", Mock(side_effect=bursts))
    assert least([lambda _: None], time.perf_counter) == [300.0]


def test_a_burst_takes_single_runs_after_one_that_does_not_count() -> None:
    ticks = iter(np.arange(1e6))
    runs: list[int] = []
    taken = stopwatch._burst(runs.append, lambda: float(next(ticks)))
    assert set(taken) == {1.0}
    assert runs == [1] * (len(taken) + 1)


def test_the_clock_is_the_threads_only_where_one_thread_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock("cpu", 1) is time.thread_time
    for provider, threads, platform in (("cpu", 2, "linux"), ("cuda", 1, "linux"), ("cpu", 1, "win32")):
        monkeypatch.setattr(sys, "platform", platform)
        assert clock(provider, threads) is time.perf_counter


@pytest.mark.parametrize("name", ["float32", "float16", "float64", "int8", "uint8", "int64", "bool"])
def test_constants_stand_in_with_values_that_no_kernel_is_slow_for(name: str) -> None:
    made = stand_in(np.dtype(name), [3, 5], np.random.default_rng(0))
    assert (made.dtype, made.shape) == (np.dtype(name), (3, 5))
    assert ((made >= 0.25) & (made <= 0.75)).all() if made.dtype.kind == "f" else not made.any()


def test_inputs_depend_on_their_name_and_the_seed() -> None:
    first = draw("x", "tensor(float)", (4, 5), 0)
    assert np.array_equal(first, draw("x", "tensor(float)", (4, 5), 0))
    assert not np.array_equal(first, draw("y", "tensor(float)", (4, 5), 0))
    assert not np.array_equal(first, draw("x", "tensor(float)", (4, 5), 1))
    assert draw("x", "tensor(bfloat16)", (4,), 0).dtype == np.uint16
    with pytest.raises(KeyError):
        draw("x", "tensor(string)", (4,), 0)


@pytest.mark.parametrize("declared", ["float[N]", "float", "float[A,B]"])
def test_outputs_may_have_another_rank_than_the_model_says(declared: str) -> None:
    """ONNX Runtime warns of it in the first run, and refuses its own buffers in the second."""
    text = f"""<ir_version: 8, opset_import: ["": 18]> g (float[N,M] x) => ({declared} y, seq(float) s) {{
        y = Squeeze (x) s = SequenceConstruct (x)
    }}"""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(parser.parse_model(text).SerializeToString(), options)
    feeds = {"x": np.ones((3, 4), np.float32)}
    bind(session, {"x": "tensor(float)"}, feeds, "cpu")(3)
