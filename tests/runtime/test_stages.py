"""Staged execution: the same values as a whole run, nothing left behind, nobody else's files touched."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from nets import NETS, parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.runtime.session import Session, random_feeds
from onnxprune.runtime.stages import StagedRun

CASES: dict[str, str] = NETS | {
    "a branch that captures": """(float[N,3,4,4] x, bool c) => (float[N,4,4,4] y)
    <float[8,3,1,1] w1, float[6,8,1,1] w2, float[4,6,1,1] w3, float[4,8,1,1] wa> {
      a = Conv(x, w1)
      b = Conv(a, w2)
      d = Conv(b, w3)
      e = If (c) <then_branch = yes () => (float[N,4,4,4] p) { p = Conv(a, wa) },
                  else_branch = no () => (float[N,4,4,4] q) { q = Identity(d) }>
      y = Add(d, e)
    }""",
    "an operator without inference": """(float[N,4] x) => (float[N,3] y) <float[4,6] w1, float[6,3] w2> {
      a = MatMul(x, w1)
      g = com.microsoft.Gelu(a)
      h = com.microsoft.FusedMatMul(g, w2)
      y = Relu(h)
    }""",
    "sequences": """(float[N,4] x) => (float[N,4] y, float[N,4] z) <float[4,4] w, int64 one = {1}> {
      a = MatMul(x, w)
      s = SequenceConstruct(a, x)
      z = SequenceAt(s, one)
      b = Relu(a)
      y = Add(b, z)
    }""",
    "half precision": "(float16[N,4] x) => (float16[N,3] y) <float16[4,3] w> { a = MatMul(x, w) y = Relu(a) }",
    "integers": """(float[N,4] x) => (int64[N] y, bool[N] z) <int64 one = {1}> {
      a = ArgMax<axis = 1, keepdims = 0>(x)
      y = Add(a, one)
      z = Less(a, y)
    }""",
    "an output that is read": "(float[N,4] x) => (float[N,4] a, float[N,4] y) { a = Relu(x) b = Neg(a) y = Add(a, b) }",
}


def loaded(name: str) -> Model:
    return Model.of(parse(CASES[name], domains=["com.microsoft"]))


def feeds_of(model: Model, batches: int = 3) -> list[dict[str, Array]]:
    """Batches of unequal size."""
    found = []
    for batch in range(batches):
        shapes = {v.name: tuple(d.dim_value or batch + 2 for d in v.type.tensor_type.shape.dim) for v in model.inputs}
        found.append(random_feeds(model.inputs, shapes, batch))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("memory", [0, 1000, 1 << 30])
@pytest.mark.parametrize("name", CASES)
def test_it_is_a_whole_run(name: str, memory: int, folder: Path) -> None:
    """Node by node, from memory and from files; inputs and outputs of each node are there when it is next."""
    model = loaded(name)
    feeds = feeds_of(model)
    names = [value for node in model.graph.node for value in node.output]
    whole = [dict(zip(names, Session(model, names, optimize=False).run(feed), strict=True)) for feed in feeds]
    with StagedRun(model, feeds, memory=memory) as stages:
        assert (stages.batches, stages.done) == (3, 0)
        for place, node in enumerate(model.graph.node):
            stages.advance(place)
            for value in node.input:
                for batch in range(3) if value not in model.weights else ():
                    expected = whole[batch] | feeds[batch]
                    compare(stages.value(value, batch), expected[value])
        stages.advance(len(model.graph.node))
        for output in model.graph.output:
            for batch in range(3):
                compare(stages.value(output.name, batch), whole[batch][output.name])
        if memory == 0:
            assert list(folder.glob("**/*.npy"))
    assert not list(folder.iterdir())


def compare(got: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            compare(a, b)
        return
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_stages_may_be_of_any_length(folder: Path) -> None:
    model = loaded("gate")
    feeds = feeds_of(model)
    session = Session(model)
    with StagedRun(model, feeds) as stages:
        for stop in (3, 3, 1, 6, len(model.graph.node)):
            stages.advance(stop)
            assert stages.done >= stop
        for batch, feed in enumerate(feeds):
            compare(stages.value("y", batch), session.run(feed)[0])


def test_what_nothing_reads_any_more_is_dropped(folder: Path) -> None:
    model = loaded("chain")
    with StagedRun(model, feeds_of(model), keep=["n"], memory=0) as stages:
        stages.advance(3)
        assert stages.value("n", 0).shape[1] == stages.value("r", 0).shape[1] == 8
        for name in ("x", "a"):
            with pytest.raises(KeyError):
                stages.value(name, 0)
        assert len(list(folder.glob("**/*.npy"))) == 6
        stages.release("n")
        assert len(list(folder.glob("**/*.npy"))) == 3
        with pytest.raises(KeyError):
            stages.value("n", 0)
        stages.advance(6)
        assert stages.value("y", 2).shape[1] == 4


def test_memory_that_is_free_again_is_used(folder: Path) -> None:
    """Room for two values of one batch: what is dropped makes room."""
    model = Model.of(parse("(float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Neg(a) c = Neg(b) y = Neg(c) }"))
    with StagedRun(model, [{"x": np.ones((2, 4), np.float32)}], memory=64) as stages:
        stages.advance(4)
        compare(stages.value("y", 0), -np.ones((2, 4), np.float32))
        assert not list(folder.iterdir())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is mapped")
def test_what_lies_in_files_takes_no_memory_until_it_is_asked_for(folder: Path) -> None:
    model = loaded("chain")
    with StagedRun(model, feeds_of(model), memory=0) as run:
        run.advance(2)
        assert list(folder.rglob("*.npy"))
        assert str(folder) not in Path("/proc/self/maps").read_text()
        value = run.value(model.graph.node[1].output[0], 0)
        assert isinstance(value, np.memmap)
        assert str(folder) in Path("/proc/self/maps").read_text()


def test_replaced_weights_count_from_the_next_stage() -> None:
    model = loaded("flatten")
    (feed,) = feeds_of(model, 1)
    session = Session(model, ["r"])
    (r,) = session.run(feed)
    with StagedRun(model, [feed]) as stages:
        stages.advance(4)
        weight = np.ones((5, 6), np.float32)
        model.weights["w3"] = Weight("w3", None, weight)
        model.weights["w2"] = Weight("w2", None, np.zeros((128, 6), np.float32))  # too late
        stages.advance(5)
        compare(stages.value("y", 0), r @ weight.T)


def test_what_no_output_needs_is_not_run() -> None:
    nodes = "a = MatMul(x, w) b = MatMul(z, w) c = Relu(b) y = Relu(a)"
    text = f"(float[N,4] x, float[N,5] z) => (float[N,4] y) <float[4,4] w> {{ {nodes} }}"
    model = Model.of(parse(text))
    feed = {"x": np.ones((1, 4), np.float32), "z": np.ones((1, 5), np.float32)}  # the second product cannot be run
    with StagedRun(model, [feed]) as stages:
        for stop in range(1, 5):
            stages.advance(stop)
        assert stages.value("y", 0).shape == (1, 4)
    with StagedRun(model, [feed], keep={"c"}) as stages, pytest.raises(Exception, match="dimension mismatch"):
        stages.advance(4)


def test_files_of_others_are_not_touched(tmp_path: Path, folder: Path) -> None:
    """Samples may be mapped from a person's file."""
    path = tmp_path / "samples.npy"
    np.save(path, np.ones((2, 4), np.float32))
    feed: Mapping[str, Any] = {"x": np.load(path, mmap_mode="r")}
    model = Model.of(parse("(float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Neg(a) }"))
    for memory in (0, 1 << 30):
        with StagedRun(model, [feed], memory=memory) as stages:
            stages.advance(2)
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npy"]


def test_text_stays_in_memory() -> None:
    model = Model.of(parse("(string[N] x) => (string[N] y) { a = Identity(x) y = Identity(a) }"))
    with StagedRun(model, [{"x": np.array(["a", "b"], object)}], memory=0) as stages:
        stages.advance(1)
        assert stages.info("a").type.tensor_type.elem_type == TensorProto.STRING
        stages.advance(2)
        assert stages.value("y", 0).tolist() == ["a", "b"]


def test_an_old_model() -> None:
    """Before version 4 of the format weights had to be inputs too; parts of it need not be."""
    proto = parse(NETS["chain"], opset=9)
    proto.ir_version = 3
    proto.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer)
    model = Model.of(proto)
    feeds = feeds_of(model)
    with StagedRun(model, feeds) as stages:
        stages.advance(2)
        stages.advance(6)
        compare(stages.value("y", 0), Session(model).run(feeds[0])[0])
