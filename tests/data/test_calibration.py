"""Calibration samples as batches: what is fitted on, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.data import calibration
from onnxprune.data.calibration import Calibration, CalibrationFeeds, unpadded
from onnxprune.data.samples import Batch, Samples, open_samples
from onnxprune.ir.model import Model
from onnxprune.shapes.probes import probe


def opened(count: int, *, batch: str = "N") -> tuple[Calibration, Samples]:
    """Samples 0, 1, 2, ... for a small model."""
    model = Model.of(parse(f"(float[{batch},1] x) => (float[{batch},1] y) {{ y = Relu(x) }}"))
    samples = open_samples({"x": np.arange(count, dtype=np.float32)[:, None]}, model.inputs)
    return Calibration.of(samples, probe(model)), samples


def read(feeds: CalibrationFeeds) -> list[list[int]]:
    return [batch["x"][:, 0].astype(int).tolist() for batch in feeds]


def test_each_fourth_batch_is_held_out() -> None:
    found, _ = opened(17)
    assert found.size == 2
    assert read(found.every) == [*([at, at + 1] for at in range(0, 16, 2)), [16]]
    assert read(found.held) == [[6, 7], [14, 15]]
    assert read(found.fit) == [batch for batch in read(found.every) if batch not in read(found.held)]
    assert [len(feeds) for feeds in (found.every, found.fit, found.held)] == [9, 7, 2]


def test_every_pass_is_the_same() -> None:
    found, _ = opened(20)
    assert read(found.fit) == read(found.fit)


@pytest.mark.parametrize(("count", "size", "batches"), [(1, 1, 1), (3, 1, 3), (8, 1, 8), (100, 12, 9), (600, 64, 10)])
def test_batches_are_at_least_eight_where_there_are_samples(count: int, size: int, batches: int) -> None:
    found, _ = opened(count)
    assert (found.size, len(found.every)) == (size, batches)
    if batches < 4:
        assert read(found.fit) == read(found.held) == read(found.every)
    else:
        assert len(found.fit) + len(found.held) == batches


def test_a_static_batch_stays() -> None:
    found, _ = opened(30, batch="5")
    assert found.size == 1
    assert [len(batch) for batch in read(found.every)] == [5] * 6


def test_activations_of_a_batch_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "batch_bytes", lambda: 100)  # two values of four bytes each: x and y
    assert opened(1000)[0].size == 12


def test_samples_without_a_count() -> None:
    """A generator is not gone through to choose a size."""
    model = Model.of(parse("(float[N,1] x) => (float[N,1] y) { y = Relu(x) }"))

    class Endless(Samples):
        source, count, labelled = "endless", None, False

        def batches(self, size: int = 16) -> Iterator[Batch]:
            yield from open_samples({"x": np.zeros((300, 1))}, model.inputs).batches(size)

    found = Calibration.of(Endless(), probe(model))
    assert (found.size, len(found.every), len(found.held)) == (64, 5, 1)


def test_padding_behind_sequences_is_cut_off() -> None:
    model = Model.of(
        parse(
            "(int64[N,T] ids, int64[N,T] attention_mask, float[N,30] other) => (float[N,30] y, int64[N,T] z) "
            "{ y = Relu(other)  z = Add(ids, attention_mask) }"
        )
    )
    lengths = np.random.default_rng(0).integers(1, 31, 64)
    mask = (np.arange(30) < lengths[:, None]).astype(np.int64)
    ids = np.arange(64 * 30).reshape(64, 30) * mask
    samples = open_samples({"ids": ids, "attention_mask": mask, "other": ids.astype(np.float32)}, model.inputs)
    seen = []
    for feeds in Calibration.of(samples, probe(model)).every:
        tokens = feeds["attention_mask"].sum(1)
        assert feeds["ids"].shape[1] == feeds["attention_mask"].shape[1] == tokens.max() < tokens.min() + 8
        assert feeds["other"].shape[1] == 30  # as long as the sequences of the file, by chance
        whole = feeds["other"].astype(np.int64)
        np.testing.assert_array_equal(whole[:, : feeds["ids"].shape[1]], feeds["ids"])
        seen += whole[:, 0].tolist()
    assert sorted(seen) == sorted(ids[:, 0].tolist())


@pytest.mark.parametrize("mask", [[[0, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]], [1, 1]])
def test_batches_that_are_not_padded_behind_stay(mask: list[Any]) -> None:
    feeds = {"ids": np.ones((2, 3)), "attention_mask": np.array(mask)}
    assert list(unpadded(feeds, ["ids", "attention_mask"])) == [feeds]
    assert list(unpadded({"ids": feeds["ids"]}, ["ids"])) == [{"ids": feeds["ids"]}]
