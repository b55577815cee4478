"""The memory of a run is what is alive together, and is demanded before the run."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.runtime import memory
from onnxprune.shapes.candidates import one_sample
from onnxprune.shapes.probes import shapes_at
from onnxprune.shapes.run_memory import batch_that_fits, demand_room, peak_bytes

NET = "(float[N,64] x) => (float[N,64] y) { a = Relu(x) b = Relu(a) c = Relu(b) d = Add(c, a) y = Relu(d) }"


def test_values_count_until_their_last_reader() -> None:
    model = Model.of(parse(NET))
    shapes = shapes_at(model, {"x": (10, 64)}).shapes
    assert peak_bytes(model, shapes) == 4 * 4 * 640 - 4 * 640  # a, and two more; x has gone by then
    assert peak_bytes(model, shapes_at(model, {"x": (20, 64)}).shapes) == 2 * peak_bytes(model, shapes)


def test_a_run_that_does_not_fit_is_refused_with_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.of(parse(NET))
    shapes = shapes_at(model, {"x": (10, 64)}).shapes
    demand_room(model, shapes, "the proof")
    monkeypatch.setenv(memory.VARIABLE, "1K")
    with pytest.raises(OptionError, match=r"the proof takes about 0\.00 GB for one sample, .* left: raise --max-memory"):
        demand_room(model, shapes, "the proof")


def test_batches_are_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.of(parse(NET.replace("64", "1048576")))  # 12 MiB of each sample
    monkeypatch.setenv(memory.VARIABLE, "16G")
    assert batch_that_fits(model, 64) == 64
    monkeypatch.setenv(memory.VARIABLE, "1G")
    assert batch_that_fits(model, 64) == 256 // 12
    monkeypatch.setenv(memory.VARIABLE, "1M")
    assert batch_that_fits(model, 64) == 64 // 12


def test_one_sample_has_inputs_that_all_samples_share() -> None:
    """A scalar has no batch, and a state has it on its second axis."""
    net = "(float[N,64] x, float[2,N,8] state, float low, float[3,4] table) => (float[N,64] y) { y = Add(x, low) }"
    model = Model.of(parse(net))
    sizes = {"x": (10, 64), "state": (2, 10, 8), "low": (), "table": (3, 4)}
    assert one_sample(model, sizes) == {"x": (1, 64), "state": (2, 1, 8), "low": (), "table": (3, 4)}
    assert one_sample(Model.of(parse(NET.replace("N", "5"))), {"x": (5, 64)}) == {"x": (1, 64)}
    assert batch_that_fits(model, 64) == 64


def test_what_bodies_make_counts_while_their_node_runs() -> None:
    text = """(float[N,4] x, bool c) => (float[N,4] y) <int64[2] much = {1000, 4}> {
      z = If (c) <then_branch = t () => (p) { a = ConstantOfShape(much) b = ReduceSum(a) p = Add(x, b) },
                  else_branch = e () => (q) { q = Neg(x) }>
      y = Relu(z)
    }"""
    model = Model.of(parse(text))
    assert peak_bytes(model, shapes_at(model, {"x": (2, 4), "c": ()}).shapes) >= 4 * 4000
