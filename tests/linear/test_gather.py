"""Sums over samples, several kinds from one pass."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.calibration import CalibrationFeeds
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Array
from onnxprune.linear import gather as module
from onnxprune.linear import moments
from onnxprune.linear.gather import gather, shard_length, sum_shard
from onnxprune.linear.moments import MomentSums
from onnxprune.linear.rotation import BasisSums
from onnxprune.passes.analysis import Analysis
from onnxprune.runtime.engines.pool import Outcome, Pool, attempt
from onnxprune.runtime.session import Session


class Total:
    """Adds up some values."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.found = dict.fromkeys(names, 0.0)

    @property
    def nbytes(self) -> int:
        return 8 * len(self.names)

    def fresh(self, shard: int) -> Total:
        return Total(*self.names)

    def add(self, values: Mapping[str, Array]) -> None:
        for name in self.names:
            self.found[name] += float(values[name].sum())

    def state(self) -> dict[str, float]:
        return self.found

    def merge(self, state: dict[str, float]) -> None:
        for name, value in state.items():
            self.found[name] += value


def test_every_kind_sees_its_values_of_every_batch_and_the_model_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyze(parse(NETS["residual"]))
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    feeds = found.calibration(open_samples({"x": x}, found.model.inputs)).every
    expected = Session(found.model, ["a", "r", "sum"]).run({"x": x})
    run, seen = Session.run, list[int]()

    def counted(self: Session, feeds: Mapping[str, Any]) -> list[Any]:
        seen.append(len(feeds["x"]))
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", counted)
    first, second, none = Total("a", "r"), Total("r", "sum"), Total()
    gather(found.model, feeds, first, second, none)
    assert sum(seen) == 40
    got = [first.found["a"], first.found["r"], second.found["sum"]]
    np.testing.assert_allclose(got, [float(value.sum()) for value in expected], rtol=1e-4)
    assert first.found["r"] == second.found["r"]


def test_where_nothing_is_looked_at_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyze(parse(NETS["residual"]))
    x = np.zeros((8, 3, 8, 8), np.float32)
    feeds = found.calibration(open_samples({"x": x}, found.model.inputs)).every
    monkeypatch.setattr(Session, "run", lambda *_: pytest.fail("the model ran"))
    gather(found.model, feeds, Total())


# Shards


class Thread:
    """A slot whose process is a thread: what goes there and back is pickled all the same."""

    host = "here"

    def __init__(self, *, forgets: bool = False) -> None:
        self._pool, self._forgets = ThreadPoolExecutor(1), forgets

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        return self._pool.submit(self._call, pickle.dumps((function, arguments)))

    def _call(self, sent: bytes) -> Outcome:
        if self._forgets:
            module._known.clear()
        function, arguments = pickle.loads(sent)  # noqa: S301 - our own
        found: Outcome = pickle.loads(pickle.dumps(attempt(function, arguments)))  # noqa: S301 - our own
        return found

    def end(self) -> None:
        self._pool.shutdown()


@pytest.fixture(params=["attention", "chain"])
def sharded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[bytes]]]:
    """A function from an engine to all sums over ten batches, as bytes; shards have three of them, and draw some of the rows."""
    monkeypatch.setattr(module, "_SHARD", 3)
    monkeypatch.setattr(moments, "rows_wanted", lambda *_: 150)
    found = analyze(parse(NETS[request.param]))
    shape = {"attention": (80, 5, 8), "chain": (80, 3, 8, 8)}[request.param]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    feeds = CalibrationFeeds(open_samples({"x": x}, found.model.inputs), 8)

    def summed(engine: Pool | None = None, **options: Any) -> list[bytes]:
        return sums_of(found, feeds, engine, **options)

    yield summed
    module._known.clear()


def sums_of(found: Analysis, feeds: CalibrationFeeds, engine: Pool | None, **options: Any) -> list[bytes]:
    first, second = MomentSums(found.model, found.coupling, len(feeds), seed=1), BasisSums(found.model, found.coupling)
    gather(found.model, feeds, first, second, engine=engine, **options)
    statistics = first.statistics()
    return [
        *(one.array.tobytes() for one in statistics.moments.values()),
        *(statistics.energies[place].tobytes() for place in sorted(statistics.energies)),
        *(basis.forth.tobytes() for basis in second.bases().values()),
    ]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sums_are_the_same_bytes_whoever_adds_them_up(sharded: Callable[..., list[bytes]], workers: int) -> None:
    with Pool("threads", [Thread() for _ in range(workers)], {}) as engine:
        assert sharded(engine) == sharded()


def test_a_process_that_does_not_have_the_model_is_sent_it(sharded: Callable[..., list[bytes]]) -> None:
    assert sum_shard("unknown", None, 0, []) is None
    with Pool("threads", [Thread(forgets=True)], {}) as engine:
        assert sharded(engine) == sharded()


def test_how_batches_are_cut_follows_from_their_number_alone() -> None:
    assert [shard_length(batches) for batches in (1, 16, 17, 1024, 1025, 6400)] == [16, 16, 16, 16, 17, 100]


@pytest.mark.parametrize("net", ["attention", "chain"])
def test_the_sums_of_one_shard_are_those_of_its_batches(net: str) -> None:
    """So few samples are summed up in one go, and rows drawn as the seed says."""
    found = analyze(parse(NETS[net]))
    x = np.random.default_rng(0).standard_normal({"attention": (80, 5, 8), "chain": (80, 3, 8, 8)}[net]).astype(np.float32)
    feeds = found.calibration(open_samples({"x": x}, found.model.inputs)).every
    assert len(feeds) <= shard_length(len(feeds))
    plain = MomentSums(found.model, found.coupling, len(feeds), seed=1), BasisSums(found.model, found.coupling)
    names = [*plain[0].names, *plain[1].names]
    session = Session(found.model, names)
    for batch in feeds:
        for some in plain:
            some.add(dict(zip(names, session.run(batch), strict=True)))
    moments_of = plain[0].statistics().moments
    assert [one.array.tobytes() for one in moments_of.values()] == sums_of(found, feeds, None)[: len(moments_of)]
    summed = BasisSums(found.model, found.coupling)
    gather(found.model, feeds, summed)
    assert [basis.forth.tobytes() for basis in summed.bases().values()] == [
        basis.forth.tobytes() for basis in plain[1].bases().values()
    ]


def test_each_shard_is_told_of(sharded: Callable[..., list[bytes]]) -> None:
    told: list[str] = []
    sharded(tell=told.append)
    assert len(told) == 4
    assert told[-1] == "gathering statistics of what the layers read (4 of 4 shards)"


@pytest.mark.parametrize(("room", "most"), [(0, 2), (2**40, 6)])
def test_sums_that_wait_for_others_fit_into_the_memory(
    sharded: Callable[..., list[bytes]], monkeypatch: pytest.MonkeyPatch, room: int, most: int
) -> None:
    monkeypatch.setattr(module, "_SHARD", 1)
    monkeypatch.setattr(module, "spare", lambda *_: room)
    send, under_way, seen = module._Away.send, [0], list[int]()

    def counted(self: module._Away, shard: Any) -> Any:
        under_way[0] += 1
        seen.append(under_way[0])
        return send(self, shard)

    def told(_: str) -> None:
        under_way[0] -= 1

    monkeypatch.setattr(module._Away, "send", counted)
    with Pool("threads", [Thread() for _ in range(3)], {}) as engine:
        sharded(engine, tell=told)
    assert max(seen) == most
