"""Models run segment by segment compute what they compute whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import ModelProto

import digits
from nets import NETS, both, parse
from onnxprune import ModelError, Recipe, prune
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.subgraph import outer_values
from onnxprune.ir.weights import Weight
from onnxprune.runtime import partition
from onnxprune.runtime.partition import Partition, Runner, run_each, run_for_shapes, split
from onnxprune.runtime.session import random_feeds
from onnxprune.shapes.candidates import bindings
from onnxprune.verify.law import compare
from test_random_graphs import models

FOLDER = Path(digits.__file__).resolve().parent


def pieces(monkeypatch: pytest.MonkeyPatch, size: int = 0) -> None:
    """Every model runs in segments of at most so many bytes of constants; 0 gives each node with constants its own."""
    monkeypatch.setattr(partition, "WHOLE_BYTES", -1)
    monkeypatch.setattr(partition, "PARTITION_BYTES", size)


def feeds_of(model: Model) -> list[dict[str, Any]]:
    return [random_feeds(model.inputs, shapes, number) for number, shapes in enumerate(bindings(model.inputs))]


def assert_same(model: Model, size: int = 0, outputs: list[str] | None = None) -> int:
    """The same values to the last bit, from as many segments as are returned."""
    feeds = feeds_of(model)
    whole = run_each(model, feeds, outputs, optimize=False)
    with pytest.MonkeyPatch.context() as patch:
        pieces(patch, size)
        parts = run_each(model, feeds, outputs, optimize=False)
        count = len(split(model, outputs or [output.name for output in model.graph.output]))
    assert len(parts) == len(whole) == len(feeds)
    for got, expected in zip(parts, whole, strict=True):
        assert not isinstance(got, Exception), got
        assert not isinstance(expected, Exception), expected
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    return count


@pytest.mark.parametrize("size", [0, 2000])
@pytest.mark.parametrize("name", NETS)
def test_the_nets(name: str, size: int) -> None:
    assert assert_same(Model.of(parse(NETS[name])), size) > (1 if size == 0 else 0)


@settings(max_examples=25)
@given(models())
def test_random_graphs(model: ModelProto) -> None:
    assert_same(Model.of(model))


def test_values_inside_are_outputs_like_any_other() -> None:
    model = Model.of(parse(NETS["residual"]))
    assert assert_same(model, 0, ["r", "y", "stem", "x"]) == 4
    with pytest.MonkeyPatch.context() as patch:
        pieces(patch)
        (found,) = run_each(model, feeds_of(model)[:1], ["b2", "a"])
    assert not isinstance(found, Exception)
    np.testing.assert_array_equal(found[0], model.weights["b2"].array())


def test_bodies_stay_with_their_node_and_lists_pass() -> None:
    model = Model.of(
        parse("""(float[N,4] x, bool b) => (float[N,8] y)
    <float[4,4] w, float[4,4] v, float[4] c, float[4,4] r, int64[2] parts = {2,2}> {
      h = MatMul(x, w)
      i = If (b) <
        then_branch = one () => (float[N,4] s) { t = MatMul(h, v) s = Add(t, c) },
        else_branch = two () => (float[N,4] u) { u = Add(x, h) }
      >
      list = SplitToSequence<axis = 1>(i, parts)
      g = MatMul(h, r)
      more = SequenceInsert(list, g)
      y = ConcatFromSequence<axis = 1>(more)
    }""")
    )
    assert assert_same(model) == 4
    (part,) = [part for part in split_of(model) if any(node.op_type == "If" for node in part.nodes)]
    assert constants(model, part) == ["c", "v"]
    assert part.reads == ("b", "h", "x")


def constants(model: Model, part: Partition) -> list[str]:
    return sorted(model.weights.keys() & outer_values(part.nodes))


def split_of(model: Model) -> list[Partition]:
    with pytest.MonkeyPatch.context() as patch:
        pieces(patch)
        return split(model, [output.name for output in model.graph.output])


def test_what_crosses_and_what_is_dropped() -> None:
    model = Model.of(parse(NETS["residual"]))
    parts = [(constants(model, p), p.reads, p.writes, p.drops) for p in split_of(model)]
    assert parts == [
        (["w0"], ("x",), ("stem",), ("x",)),
        (["w1"], ("stem",), ("r",), ("a",)),
        (["b2", "w2"], ("r", "stem"), ("sum",), ("c", "r", "stem")),
        (["w3"], ("sum",), ("y",), ("sum",)),
    ]


def test_segments_fit_the_budget() -> None:
    text = ", ".join(f"float[8,8] w{i}" for i in range(10))
    nodes = " ".join(f"h{i + 1} = MatMul({'x' if i == 0 else f'h{i}'}, w{i})" for i in range(10))
    model = Model.of(parse(f"(float[N,8] x) => (float[N,8] h10) <{text}> {{ {nodes} }}"))
    each = 8 * 8 * 4
    for size, counts in ((each, [1] * 10), (3 * each, [3, 3, 3, 1]), (3 * each + 1, [3, 3, 3, 1]), (each - 1, [1] * 10)):
        with pytest.MonkeyPatch.context() as patch:
            pieces(patch, size)
            assert [len(constants(model, part)) for part in split(model, ["h10"])] == counts


def test_nodes_out_of_order_and_nodes_for_nothing() -> None:
    model = parse(NETS["residual"])
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    model.graph.node.add(op_type="Conv", input=["x", "w0"], output=["unused"])
    assert assert_same(Model.of(model)) == 4


def test_small_models_are_run_whole() -> None:
    assert split(Model.of(parse(NETS["residual"])), ["y"]) == []


def test_one_feed_that_does_not_run_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.of(parse("(float[N,4] x) => (float[N,4] y) <float[4,4] w, float[2,4] b> { h = MatMul(x, w) y = Add(h, b) }"))
    pieces(monkeypatch)
    good, bad = (np.ones((n, 4), np.float32) for n in (2, 3))
    failed, found = run_each(model, [{"x": bad}, {"x": good}])
    assert isinstance(failed, Exception)
    assert failed.__traceback__ is None
    assert not isinstance(found, Exception)
    assert all(isinstance(result, Exception) for result in run_each(model, [{"x": bad}]))


def test_a_runner_runs_whole_or_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.of(parse(NETS["chain"]))
    feeds = feeds_of(model)[0]
    (expected,) = Runner(model).run(feeds)
    pieces(monkeypatch)
    np.testing.assert_allclose(Runner(model).run(feeds)[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(Exception, match="Input channels C is not equal"):
        Runner(model).run({"x": np.ones((1, 4, 8, 8), np.float32)})


def test_a_segment_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse(NETS["chain"])
    model.graph.node[-1].op_type = "NoSuchOperator"
    pieces(monkeypatch)
    with pytest.raises(ModelError, match="NoSuchOperator"):
        run_each(Model.of(model), feeds_of(Model.of(model)))


def test_a_value_that_is_no_tensor_cannot_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse("""(float[N,4] x) => (float[N,4] y) <float[4,4] w> {
      s = SequenceEmpty()
      h = MatMul(x, w)
      t = SequenceInsert(s, h)
      y = ConcatFromSequence<axis = 0>(t)
    }""")
    pieces(monkeypatch)
    with pytest.raises(ModelError, match="'s' is no tensor, and the model is too large to be run whole"):
        run_each(Model.of(model), feeds_of(Model.of(model)))


def test_no_two_segments_hold_weights_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each weight is read once for all feeds, in the order of the graph."""
    model = Model.of(parse(NETS["chain"]))
    read: list[str] = []
    array = Weight.array

    def note(self: Weight) -> Any:
        read.append(self.name)
        return array(self)

    monkeypatch.setattr(Weight, "array", note)
    monkeypatch.setattr("onnxprune.runtime.session._SHARED", 0)
    pieces(monkeypatch)
    run_each(model, feeds_of(model))
    assert len(read) == len(model.weights)
    assert [name for name in read if name.startswith("w")] == ["w1", "w2", "w3"]


# --- What builds on it ------------------------------------------------------------------------------------------------


def test_shapes_from_a_run() -> None:
    model = Model.of(parse(NETS["chain"]))
    for size in (None, 0):
        with pytest.MonkeyPatch.context() as patch:
            if size is not None:
                pieces(patch, size)
            assert run_for_shapes(model, {"x": (2, 3, 8, 8)}, ["a", "s"]) == {"a": (2, 8, 8, 8), "s": (2, 6, 8, 8)}
            assert run_for_shapes(model, {"x": (2, 4, 8, 8)}, ["a"]) == {}  # it does not run on that


@pytest.mark.parametrize("name", ["digits.onnx", "digits__bn.onnx"])
def test_the_proof_in_segments_is_the_proof(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(target="macs=0.5", align="4")
    whole = prune(FOLDER / name, recipe).report
    pieces(monkeypatch, 20_000)
    parts = prune(FOLDER / name, recipe).report
    assert parts.verification is not None
    assert whole.verification is not None
    assert parts.verification.ok
    assert parts.verification.runs == whole.verification.runs == 3
    assert parts.verification.notes[0].startswith("run in ")
    assert "segments of the graph" in parts.verification.notes[0]
    assert whole.verification.notes == ()
    assert parts.drift is not None
    assert whole.drift is not None
    assert parts.drift.cosine == pytest.approx(whole.drift.cosine, abs=1e-5)


@pytest.mark.parametrize("name", ["chain", "residual", "shuffle", "attention"])
def test_every_single_wrong_position_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyze(parse(NETS[name]))
    pieces(monkeypatch)
    for group in found.coupling.groups:
        pruned, masked = both(found, {group.id: list(range(group.size - 1))})
        assert compare(pruned, masked).ok
        _, other = both(found, {group.id: list(range(1, group.size))})
        assert not compare(pruned, other).ok
