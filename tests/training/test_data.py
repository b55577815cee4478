"""Samples for training: every sample once an epoch, in another order each, from every form."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from onnxprune import OptionError
from onnxprune.data.batching import Batch
from onnxprune.training.data import TrainingData
from trainable import graph

OPEN = graph("(float[N,2] x) => (float[N,2] y) { y = Neg(x) }").graph.input
FIXED = graph("(float[4,2] x) => (float[4,2] y) { y = Neg(x) }").graph.input
X = np.arange(22, dtype=np.float32).reshape(11, 2)
LABELS = np.arange(11)


def numbers(batches: list[Batch]) -> list[list[int]]:
    for batch in batches:
        assert batch.labels is None or np.array_equal(batch.labels * 2, batch.feeds["x"][:, 0])
    return [(batch.feeds["x"][:, 0] / 2).astype(int).tolist() for batch in batches]


@pytest.fixture(params=["arrays", "npz", "npy", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if request.param == "arrays":
        return {"x": X, "label": LABELS}
    if request.param == "npz":
        np.savez(tmp_path / "d.npz", images=X, labels=LABELS)
        return tmp_path / "d.npz"
    if request.param == "npy":
        np.save(tmp_path / "d.npy", X)
        return tmp_path / "d.npy"
    for at in range(11):
        np.savez(tmp_path / f"{at}.npz", x=X[at], label=LABELS[at])
    return tmp_path


def test_each_sample_once_and_another_order_each_epoch(source: object) -> None:
    data = TrainingData(source, OPEN, batch=4, seed=1)  # type: ignore[arg-type]
    assert data.steps == 3
    first, second = (numbers(list(data.epoch(number))) for number in (0, 1))
    assert [len(part) for part in first] == [4, 4, 3]
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(11))
    assert first != second
    assert first == numbers(list(TrainingData(source, OPEN, batch=4, seed=1).epoch(0)))  # type: ignore[arg-type]
    assert first != numbers(list(TrainingData(source, OPEN, batch=4, seed=2).epoch(0)))  # type: ignore[arg-type]
    assert numbers(list(data.epoch(0, skip=2))) == first[2:]


def test_processes_share_an_epoch() -> None:
    whole = numbers(list(TrainingData({"x": X}, OPEN, batch=2).epoch(3)))
    parts = [TrainingData({"x": X}, OPEN, batch=2, shard=(rank, 2)) for rank in (0, 1)]
    assert [data.steps for data in parts] == [3, 3]
    mine, theirs = (numbers(list(data.epoch(3))) for data in parts)
    assert [mine, theirs] == [whole[0::2], whole[1::2]]
    assert numbers(list(parts[1].epoch(3, skip=2))) == whole[5:]
    with pytest.raises(OptionError, match="has 1 batches for 2 processes"):
        TrainingData({"x": X}, OPEN, batch=64, shard=(0, 2))


def test_a_static_batch_is_always_whole() -> None:
    assert [len(part) for part in numbers(list(TrainingData({"x": X}, FIXED, batch=64).epoch(0)))] == [4, 4]


def test_batches_are_no_smaller_than_they_must() -> None:
    assert [len(part) for part in numbers(list(TrainingData({"x": X[:9]}, OPEN, batch=8).epoch(0)))] == [5, 4]


def test_an_array_on_disk_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "d.npy", X)
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    assert sorted(itertools.chain(*numbers(list(TrainingData(tmp_path / "d.npy", OPEN, batch=4).epoch(0))))) == list(range(11))


STREAM = """
import numpy as np, torch
def batches():
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    for rows in torch.randperm(11).split(4):
        yield x[rows.numpy()], rows.numpy()
def endless():
    while True:
        yield np.random.rand(4, 2).astype(np.float32)
"""


def test_functions_are_called_for_every_epoch_and_draw_alike(here: Path) -> None:
    (here / "streams.py").write_text(STREAM)
    data = TrainingData("streams:batches", OPEN, batch=4, seed=5)
    assert data.steps == 3
    first, second = (numbers(list(data.epoch(number))) for number in (0, 1))
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(11))
    assert first != second
    assert numbers(list(data.epoch(0, skip=1))) == first[1:]


def test_data_without_end_has_steps(here: Path) -> None:
    (here / "streams.py").write_text(STREAM)
    data = TrainingData("streams:endless", OPEN, batch=8, steps=3)
    assert data.steps == 3
    assert [batch.size for batch in data.epoch(0)] == [8, 8, 8]


def test_samples_of_many_shapes_are_kept_apart(tmp_path: Path) -> None:
    wide = graph("(float[N,T] x) => (float[N,T] y) { y = Neg(x) }")
    for at in range(6):
        np.savez(tmp_path / f"{at}.npz", x=np.full((2, 3 + at % 2), at, np.float32))
    found = list(TrainingData(tmp_path, wide.graph.input, batch=4).epoch(0))
    assert sum(batch.size for batch in found) == 12
    assert {batch.feeds["x"].shape[1] for batch in found} == {3, 4}
