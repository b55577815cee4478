"""The price of a plan is the time of the model that it makes, as far as layers add up; nothing is timed twice."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from nets import NETS, parse
from onnxprune.axes.factors import Factor
from onnxprune.driver.prune import analyze
from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.ir.model import Model
from onnxprune.latency import measurements, profiler
from onnxprune.latency.benchmark import machine_of
from onnxprune.latency.model import LatencyModel
from onnxprune.latency.profiler import LatencyProfiler
from onnxprune.passes.analysis import Analysis

ANALYSES = {name: analyze(parse(NETS[name])) for name in NETS}


def weigh(model: ModelProto) -> float:
    """A time that adds up: microseconds for each element of each matrix."""
    sizes = [math.prod(tensor.dims) for tensor in model.graph.initializer if math.prod(tensor.dims) > max(tensor.dims, default=1)]
    return 1e-3 * float(sum(sizes))


class Clock:
    """A timer that takes no time: remembers what it was asked, and slows down by `pace` with every call."""

    def __init__(self, cost: Callable[[ModelProto], float | None] = weigh, pace: Sequence[float] = (1.0,)) -> None:
        self.cost, self.pace, self.calls = cost, pace, 0
        self.asked: Counter[bytes] = Counter()
        self.models: list[ModelProto] = []

    def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
        self.asked.update(model.SerializeToString(deterministic=True) for model in models)
        self.models += models
        times = [self.cost(model) for model in models]
        slower = self.pace[self.calls % len(self.pace)]
        self.calls += 1
        return [None if ms is None else ms * slower for ms in times]


def profiling(found: Analysis, clock: Clock | None = None, *, cache: Path | None = None, **options: Any) -> LatencyProfiler:
    return LatencyProfiler(found.model, found.coupling, found.shapes, cache=cache, timer=clock or Clock(), **options)


def model_of(found: Analysis) -> LatencyModel:
    """The model of some groups' widths; with a width of 1 a matrix is none."""
    return profiling(found).profile({group.factor: range(2, group.size + 1) for group in found.coupling.groups})


MODELS = {name: model_of(found) for name, found in ANALYSES.items()}


def some(found: Analysis, seed: int) -> dict[Factor, int]:
    """Seeded widths of some groups, 2 at least."""
    rng = np.random.default_rng(seed)
    return {g.factor: int(rng.integers(2, g.size + 1)) for g in found.coupling.groups if rng.random() < 0.8}


# What a plan costs


@given(st.sampled_from(sorted(NETS)), st.integers(0, 2**16))
def test_a_time_that_adds_up_is_exact_under_every_plan(name: str, seed: int) -> None:
    found, costs = ANALYSES[name], MODELS[name]
    counts = some(found, seed)
    whole = costs._graph.whole(counts)
    assert whole is not None
    assert costs.total(counts) == pytest.approx(weigh(whole), rel=1e-9)


@given(st.sampled_from(sorted(NETS)), st.integers(0, 2**16))
def test_change_is_the_difference_of_totals(name: str, seed: int) -> None:
    found, costs, rng = ANALYSES[name], MODELS[name], np.random.default_rng(seed)
    counts = some(found, seed)
    group = found.coupling.groups[int(rng.integers(len(found.coupling.groups)))]
    wanted, before = int(rng.integers(2, group.size + 1)), dict(counts)
    change = costs.change(counts, group.factor, wanted)
    assert counts == before
    difference = costs.total({**before, group.factor: wanted}) - costs.total(before)
    assert change == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_the_whole_model_and_the_fit_are_reported(name: str) -> None:
    costs = MODELS[name]
    assert costs.total({}) == pytest.approx(costs.fit.whole, rel=1e-9)
    assert (costs.fit.scale, costs.fit.per_byte, costs.fit.offset) == pytest.approx((1, 0, 0), abs=1e-9)
    assert costs.fit.error == pytest.approx(0, abs=1e-9)
    assert not costs.untimed


def beside(model: ModelProto, *, scale: float, per_byte: float, offset: float) -> float:
    """What layers weigh when they are timed alone, and more in the whole model."""
    if sum(node.op_type == "Conv" for node in model.graph.node) < 4:
        return weigh(model)
    elements = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    return scale * weigh(model) + 4 * per_byte * float(elements) + offset


def test_what_the_whole_model_takes_beyond_its_segments_is_fitted() -> None:
    found = ANALYSES["residual"]
    costs = profiling(found, Clock(partial(beside, scale=1.1, per_byte=1e-4, offset=0.2))).profile()
    counts = {found.coupling.groups[0].factor: 3}
    whole = costs._graph.whole(counts)
    assert whole is not None
    assert costs.total(counts) == pytest.approx(beside(whole, scale=1.1, per_byte=1e-4, offset=0.2), rel=0.02)
    assert costs.fit.error < 0.02
    assert costs.fit.per_byte > 0
    assert costs.fit.offset > 0


def test_widths_between_the_points_lie_between_their_times() -> None:
    net = NETS["chain"].replace("[8", "[160").replace(",8,3,3", ",160,3,3").replace("160,8", "8,8")
    found = analyze(parse(net))
    clock = Clock(lambda model: sum(math.prod(t.dims) ** 1.5 for t in model.graph.initializer))
    costs = profiling(found, clock, align=16).profile()
    factor = found.coupling.groups[0].factor
    assert factor.size == 160
    totals = [costs.total({factor: width}) for width in range(16, 161, 16)]
    assert totals == sorted(totals)
    assert len(set(totals)) == len(totals)


def test_many_widths_shrink_together() -> None:
    found = analyze(
        parse("""(float[N,3,4,4] x) => (float[N,4,4,4] y)
        <float[8,3,1,1] a, float[8,3,1,1] b, float[8,3,1,1] c, float[8,3,1,1] d, float[4,32,1,1] w> {
          xa = Conv(x, a)
          xb = Conv(x, b)
          xc = Conv(x, c)
          xd = Conv(x, d)
          all = Concat<axis = 1>(xa, xb, xc, xd)
          y = Conv(all, w)
        }""")
    )

    def joins(model: ModelProto) -> float:
        alone = model.graph.node[0].op_type == "Concat"
        sizes = [value.type.tensor_type.shape.dim[1].dim_value for value in model.graph.input if alone]
        return weigh(model) + 1e-2 * float(sum(sizes))

    costs = profiling(found, Clock(joins)).profile()
    factors = [group.factor for group in found.coupling.groups]
    assert len(factors) == 4
    difference = costs.total({}) - costs.total(dict.fromkeys(factors, 5))
    # 3 of 8 channels less of four inputs, and of the four convolutions that make them and the one that reads them.
    assert difference / costs.fit.scale == pytest.approx(12 * (1e-2 + 3e-3 + 4e-3), rel=1e-6)


# What is timed


def test_equal_layers_are_timed_once() -> None:
    clock = Clock()
    body = "\n".join(f"x{n + 1} = Conv<pads = [1,1,1,1]>(x{n}, w{n})" for n in range(9))
    names = ", ".join(f"float[8,8,3,3] w{n}" for n in range(9))
    net = f"(float[N,8,8,8] x0) => (float[N,4,8,8] y) <{names}, float[4,8,1,1] v> {{ {body} y = Conv(x9, v) }}"
    found = analyze(parse(net))
    costs = profiling(found, clock)
    costs.profile({group.factor: [4, 8] for group in found.coupling.groups})
    small = {model: count for model, count in clock.asked.items() if len(ModelProto.FromString(model).graph.node) < 9}
    assert sum(count > 1 for count in small.values()) == 1, "the yardstick"
    # The first layer has one width of two, eight equal ones have two, the last has one; each model has a baseline.
    assert len(small) - 1 <= 2 * (2 + 4 + 2)
    assert costs.timed == len(clock.asked)


def test_asked_widths_are_timed_and_no_others() -> None:
    found, clock = ANALYSES["residual"], Clock()
    costs = profiling(found, clock)
    costs.profile({group.factor: [2, group.size] for group in found.coupling.groups})
    widths = {tensor.dims[0] for model in clock.models for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert widths <= {1, 2, 4, 6, 8, 64}


def test_profiling_again_times_what_is_new() -> None:
    found, clock = ANALYSES["residual"], Clock()
    costs = profiling(found, clock)
    costs.profile({group.factor: [4] for group in found.coupling.groups})
    timed, calls = costs.timed, clock.calls
    costs.profile({group.factor: [4] for group in found.coupling.groups})
    assert (costs.timed, clock.calls) == (timed, calls)
    costs.profile({group.factor: [2] for group in found.coupling.groups})
    assert costs.timed > timed
    clock.asked.clear()
    costs.profile({group.factor: [2, 4] for group in found.coupling.groups})
    assert not clock.asked


@pytest.mark.parametrize("align", [1, 4])
def test_widths_are_multiples_of_the_alignment_unless_told(align: int) -> None:
    found, clock = ANALYSES["chain"], Clock()
    profiling(found, clock, align=align).profile()
    first = {t.dims[0] for model in clock.models for t in model.graph.initializer if list(t.dims[1:]) == [3, 3, 3]}
    assert first == ({1, 2, 3, 4, 5, 6, 7, 8} if align == 1 else {4, 8}) | ({64} & first)


def test_moments_in_which_the_machine_is_slow_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 5)
    found = ANALYSES["residual"]
    quiet, busy = profiling(found).profile(), profiling(found, Clock(pace=(1.0, 1.7, 1.2, 3.0, 1.05))).profile()
    for seed in range(5):
        counts = some(found, seed)
        assert busy.total(counts) == pytest.approx(quiet.total(counts), rel=1e-9)


def test_the_batch_and_other_open_sizes_are_bound() -> None:
    net = NETS["chain"].replace("[N,3,8,8]", "[N,3,H,W]").replace("[N,4,8,8]", "[N,4,H,W]")
    clock = Clock()
    profiling(analyze(parse(net)), clock, batch=3, inputs={"x": (-1, 3, 40, 56)}).profile()
    sizes = [{prop.key: prop.value for prop in model.metadata_props} for model in clock.models]
    assert {"d0": "3", "d1": "40", "d2": "56"} in sizes
    strides = {
        tuple(a.ints) for model in clock.models for node in model.graph.node for a in node.attribute if a.name == "strides"
    }
    assert strides == {(40, 56)}
    clock = Clock()
    profiling(analyze(Model.of(parse(net), ("H=24", "W=32"))), clock).profile()
    sizes = [{prop.key: prop.value for prop in model.metadata_props} for model in clock.models]
    assert {"d0": "1", "d1": "24", "d2": "32"} in sizes  # as the user said


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    profiling(ANALYSES["residual"], progress=lambda *what: told.append(what)).profile()
    assert [what for what, _, _ in told] == ["timing layers", "timing the model"]
    assert told[0][1:] == (0, told[0][2])
    assert told[-1][1] == told[-1][2] == told[0][2]


def test_pricing_takes_time_in_proportion_to_nodes() -> None:
    def deep(layers: int) -> Analysis:
        names = ", ".join(f"float[8,8,3,3] w{n}" for n in range(layers))
        body = "\n".join(f"x{n + 1} = Conv<pads = [1,1,1,1]>(x{n}, w{n})" for n in range(layers))
        net = f"(float[N,8,8,8] x0) => (float[N,4,8,8] y) <{names}, float[4,8,1,1] v> {{ {body} y = Conv(x{layers}, v) }}"
        return analyze(parse(net))

    few, many = (calls(profiling(deep(layers), align=4).profile) for layers in (10, 40))
    assert many < 5 * few


def calls(function: Callable[[], object]) -> int:
    """How many Python functions are called."""
    count = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


# What is kept


def refuse(model: ModelProto) -> float:
    raise AssertionError("nothing needs to be timed")


def test_times_are_kept(tmp_path: Path) -> None:
    found, path = ANALYSES["residual"], tmp_path / "times.sqlite"
    first = profiling(found, cache=path)
    again = profiling(found, Clock(refuse), cache=path)
    measured, remembered = first.profile(), again.profile()
    assert first.timed > again.timed == 0
    for seed in range(5):
        assert remembered.total(some(found, seed)) == measured.total(some(found, seed))


def test_another_machine_times_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, path = ANALYSES["residual"], tmp_path / "times.sqlite"
    first = profiling(found, cache=path)
    measured = first.profile()
    known = machine_of(["cpu"], 1)
    for change in ({"cpu": "another"}, {"onnxruntime": "99.0"}, {"cores": 999}):
        monkeypatch.setattr(profiler, "machine_of", Mock(return_value={**known, **change}))
        other = profiling(found, cache=path)
        other.profile()
        assert other.timed == first.timed
    monkeypatch.setattr(profiler, "machine_of", Mock(return_value={**known, "system": "a newer kernel"}))
    assert profiling(found, Clock(refuse), cache=path).profile().total({}) == measured.total({})


def test_other_threads_time_anew(tmp_path: Path) -> None:
    found, path = ANALYSES["residual"], tmp_path / "times.sqlite"
    first, other = (profiling(found, cache=path, threads=threads) for threads in (1, 2))
    first.profile()
    other.profile()
    assert first.timed == other.timed > 0


def test_an_interrupted_run_keeps_what_it_has_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_AT_ONCE", 5)
    found, path = ANALYSES["residual"], tmp_path / "times.sqlite"
    whole = profiling(found)
    whole.profile()

    class Interrupted(Clock):
        def __call__(self, models: Sequence[ModelProto]) -> list[float | None]:
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().__call__(models)

    with pytest.raises(KeyboardInterrupt):
        profiling(found, Interrupted(), cache=path).profile()
    rest = profiling(found, cache=path)
    rest.profile()
    assert rest.timed == whole.timed - 16  # three times five, and the yardstick


# What goes wrong


def test_what_does_not_run_alone_is_named_and_left_to_the_other_terms() -> None:
    def fails(model: ModelProto) -> float | None:
        kinds = {node.op_type for node in model.graph.node}
        return None if "Sigmoid" in kinds and "BatchNormalization" not in kinds else weigh(model)

    costs = profiling(ANALYSES["chain"], Clock(fails)).profile()
    assert costs.untimed == ("Conv(c)", "Sigmoid(s)")
    assert costs.total({}) == pytest.approx(costs.fit.whole, rel=0.3)
    assert 0.001 < costs.fit.error < 0.3


def test_a_model_that_does_not_run_has_no_latency() -> None:
    costs = profiling(ANALYSES["chain"], Clock(Mock(return_value=None)))
    with pytest.raises(ModelError, match=r"<model>: ONNX Runtime does not run it at these sizes, .*: say others with --shape"):
        costs.profile()


def test_open_sizes_without_a_default_are_named() -> None:
    found = analyze(parse(NETS["attention"]))
    with pytest.raises(OptionError, match="input 'x'"):
        profiling(found, inputs={"x": (1, 2, 3, 4)})


def test_a_provider_that_is_not_there_is_refused() -> None:
    found = ANALYSES["chain"]
    if "TensorrtExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has TensorRT")
    with pytest.raises(ProviderError, match="tensorrt"):
        LatencyProfiler(found.model, found.coupling, found.shapes, provider="tensorrt", cache=None)


# ONNX Runtime


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_onnxruntime_times_a_model(provider: str, tmp_path: Path) -> None:
    if provider == "cuda" and "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    found = ANALYSES["flatten"]
    make = partial(LatencyProfiler, found.model, found.coupling, found.shapes, align=8, cache=tmp_path / "times.sqlite")
    costs = make(provider=provider).profile()
    totals = [costs.total(counts) for counts in ({}, some(found, 1))]
    assert all(0 < ms < 1e4 for ms in totals)
    assert not costs.untimed
    again = make(provider=provider, timer=Clock(refuse)).profile()
    assert [again.total(counts) for counts in ({}, some(found, 1))] == totals


def test_the_default_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = ANALYSES["flatten"]
    LatencyProfiler(found.model, found.coupling, found.shapes, timer=Clock()).profile()
    assert (tmp_path / "onnxprune" / "latency.sqlite").is_file()
