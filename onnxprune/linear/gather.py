"""Sums over calibration samples, as many kinds as are asked for from one pass: here, or shared out to other processes.

The batches are cut into shards, each of which is summed up by itself; the sums of the shards are added in their order. How they
are cut follows from the number of batches alone. So the result does not depend on who sums up which shard, to the last bit.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from onnxprune.runtime.custom_operators import custom_operators, libraries
from onnxprune.runtime.memory import batch_bytes, spare
from onnxprune.runtime.parallel import at_once, in_order, map_ordered
from onnxprune.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["Sums", "gather", "shard_length"]

_SHARD = 16
"""Batches of a shard, at least: a smaller one is hardly worth the way of its sums."""
_MOST = 64
"""Shards, at most: sums of a wide network fill half a gigabyte, whatever the number of batches."""
_AHEAD = 1
"""Shards that are read for each process beyond the one that it works on."""
_PART, _LEAST = 2, 2
"""The part of the memory that sums may take which wait for those of a shard before them; there are so many shards at least."""

Batches = Sequence[Mapping[str, "Array"]]


class Sums(Protocol):
    """What is added up over batches."""

    @property
    def names(self) -> Collection[str]:
        """The values of the model that are looked at."""

    @property
    def nbytes(self) -> int:
        """What it fills, about."""

    def fresh(self, shard: int) -> Self:
        """The same kind for the batches of one shard, with nothing added yet; it can be pickled."""

    def add(self, values: Mapping[str, Array]) -> None:
        """Take in one batch of these values, by name."""

    def state(self) -> Any:
        """What was added up, as arrays and numbers."""

    def merge(self, state: Any) -> None:
        """Take in what another one added up; its arrays may be kept, and changed."""


def shard_length(batches: int) -> int:
    """The number of batches of each shard, of which the last may have fewer."""
    return max(_SHARD, -(-batches // _MOST))


def gather(
    model: Model,
    feeds: CalibrationFeeds,
    *sums: Sums,
    engine: Pool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the model over all batches once, and let every kind of sum take in what it looks at; no activation is kept.

    Args:
        model: the network.
        feeds: the batches.
        sums: what takes in.
        engine: processes that shards are shared out to; ``None`` for this one alone. The sums are the same bytes.
        tell: is told how far it is.

    Raises:
        WorkerDied: a process died of a shard.
    """
    wanted = [some for some in sums if some.names]
    if not wanted:
        return
    each = shard_length(len(feeds))
    count = -(-len(feeds) // each)
    job = _Job(model, tuple(dict.fromkeys(name for some in wanted for name in some.names)), [some.fresh(0) for some in wanted])
    shards = enumerate(_cut(feeds, each))
    if engine is None:
        results: Iterator[list[Any]] = itertools.starmap(_Work(job).sum, shards)
    else:
        away = _Away(engine, job)
        results = in_order(away.send, shards, away.most)
    for number, states in enumerate(results, 1):
        if count > 1:
            tell(f"gathering statistics of what the layers read ({number} of {count} shards)")
        for some, state in zip(wanted, states, strict=True):
            some.merge(state)


def _cut(feeds: CalibrationFeeds, each: int) -> Iterator[Iterator[Mapping[str, Array]]]:
    """The shards; each must be read before the next one."""
    batches = iter(feeds)
    for first in batches:
        yield itertools.chain([first], itertools.islice(batches, each - 1))


@dataclass(frozen=True, slots=True)
class _Job:
    """What is done with each shard.

    Attributes:
        model: the network.
        names: the values that are looked at.
        sums: empty ones.
    """

    model: Model
    names: Sequence[str]
    sums: Sequence[Sums]


class _Work:
    """A job in a process that does it."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._session = Session(job.model, job.names)

    def sum(self, number: int, batches: Iterator[Mapping[str, Array]] | Batches) -> list[Any]:
        """The states of all sums of one shard."""
        parts = [some.fresh(number) for some in self._job.sums]
        for results in map_ordered(self._session.run, batches, at_once()):
            values = dict(zip(self._job.names, results, strict=True))
            for part in parts:
                part.add(values)
        return [part.state() for part in parts]


class _Away:
    """A job that other processes do; each is sent the model once.

    Attributes:
        most: shards that may be under way: their sums may all be back before those of the first one.
    """

    def __init__(self, engine: Pool, job: _Job) -> None:
        self._engine, self._key = engine, uuid.uuid4().hex
        self._content = pickle.dumps((libraries(), job))
        self._left = engine.workers
        sums = sum(some.nbytes for some in job.sums)
        self._memory = 2 * (len(self._content) + sums) + batch_bytes()
        self.most = max(_LEAST, min((1 + _AHEAD) * engine.workers, spare(_PART, 2**62) // max(sums, 1)))

    def send(self, shard: tuple[int, Iterator[Mapping[str, Array]]]) -> Future[list[Any]]:
        """Have a shard summed up; with the model for the first ones, and where the process turns out not to have it."""
        number, batches = shard[0], list(shard[1])
        told: Future[list[Any]] = Future()
        self._left -= 1

        def ask(content: bytes | None) -> None:
            sent = self._engine.submit(sum_shard, self._key, content, number, batches, memory=self._memory)
            sent.add_done_callback(look)

        def look(sent: Future[list[Any] | None]) -> None:
            with contextlib.suppress(InvalidStateError):  # nobody waits for it any more
                if sent.cancelled():
                    told.cancel()
                elif (error := sent.exception()) is not None:
                    told.set_exception(error)
                elif (states := sent.result()) is not None:
                    told.set_result(states)
                else:
                    ask(self._content)

        ask(self._content if self._left >= 0 else None)
        return told


_known: dict[str, _Work] = {}
"""The job that this process does for another one, by its key."""


def sum_shard(key: str, content: bytes | None, number: int, batches: Batches) -> list[Any] | None:
    """The states of all sums of one shard; ``None`` if this process does not know the job.

    Args:
        key: of the job.
        content: of the job, pickled by the process that shares it out.
        number: of the shard.
        batches: all of the shard.
    """
    work = _known.get(key)
    if work is None:
        if content is None:
            return None
        files, job = pickle.loads(content)  # noqa: S301 - from the process that started this one, or that this cluster works for
        _known.clear()
        with custom_operators(*files):
            work = _known[key] = _Work(job)
    return work.sum(number, batches)
