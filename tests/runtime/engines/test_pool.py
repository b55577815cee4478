"""When calls start, and what becomes of them, with slots that the test itself plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from engine_work import square
from onnxprune.errors import EngineLost, OptionError, TimedOut, WorkerDied
from onnxprune.runtime.engines.pool import Outcome, Pool, attempt


class Played:
    """A slot whose calls end when the test says so."""

    def __init__(self, host: str = "here") -> None:
        self.host = host
        self.calls: list[tuple[Any, ...]] = []
        self.inner: Future[Outcome] = Future()

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        self.calls.append(tuple(arguments))
        self.inner = Future()
        begun()
        return self.inner

    def end(self) -> None:
        if self.calls and not self.inner.done():
            self.inner.set_exception(WorkerDied("ended"))

    def finish(self) -> None:
        self.inner.set_result(attempt(square, self.calls[-1]))

    def die(self) -> None:
        self.inner.set_exception(WorkerDied("died"))


def played(count: int, memory: int | None = None, hosts: int = 1, **options: Any) -> tuple[Pool, list[Played]]:
    slots = [Played(f"host {number % hosts}") for number in range(count)]
    bounds = {} if memory is None else {slot.host: memory for slot in slots}
    return Pool("played", slots, bounds, **options), slots


def test_calls_start_in_the_order_of_their_submission() -> None:
    pool, (one, two) = played(2)
    futures = [pool.submit(square, number) for number in range(4)]
    two.finish()
    one.finish()
    assert (one.calls, two.calls) == ([(0,), (3,)], [(1,), (2,)])
    assert [future.done() for future in futures] == [True, True, False, False]


def test_memory_that_was_promised_is_not_promised_again() -> None:
    pool, (one, two, three) = played(3, memory=10)
    for number, memory in enumerate((6, 4, 1, 0)):
        pool.submit(square, number, memory=memory)
    assert (one.calls, two.calls, three.calls) == ([(0,)], [(1,)], [])  # the third waits for a byte, the fourth for the third
    two.finish()
    assert (one.calls, two.calls, three.calls) == ([(0,)], [(1,), (3,)], [(2,)])


def test_each_machine_has_memory_of_its_own() -> None:
    pool, (one, two, three) = played(3, memory=10, hosts=2)
    for number in range(3):
        pool.submit(square, number, memory=6)
    assert (one.calls, two.calls, three.calls) == ([(0,)], [(1,)], [])


def test_a_call_that_needs_more_than_there_is_has_its_machine_to_itself() -> None:
    pool, (one, two) = played(2, memory=10)
    pool.submit(square, 1, memory=1)
    pool.submit(square, 2, memory=11)
    pool.submit(square, 3, memory=1)
    assert (one.calls, two.calls) == ([(1,)], [])
    one.finish()
    assert one.calls + two.calls == [(1,), (2,)]


def test_a_call_that_is_to_be_alone_waits_for_all_and_all_wait_for_it() -> None:
    pool, (one, two) = played(2, memory=10, hosts=2)
    futures = [pool.submit(square, number, alone=number == 1) for number in range(3)]
    assert (one.calls, two.calls) == ([(0,)], [])
    one.finish()
    assert two.calls == [(1,)]
    assert one.calls == [(0,)]
    two.finish()
    assert one.calls == [(0,), (2,)]
    assert not futures[2].done()


def test_a_call_that_was_cancelled_does_not_start() -> None:
    pool, (one,) = played(1)
    futures = [pool.submit(square, number) for number in range(3)]
    assert futures[1].cancel()
    assert not futures[0].cancel()
    one.finish()
    assert one.calls == [(0,), (2,)]


def test_one_death_may_be_of_something_else_and_two_are_not() -> None:
    pool, (one,) = played(1)
    lucky, culprit = (pool.submit(square, number) for number in (5, 6))
    one.die()
    assert one.calls == [(5,), (5,)]  # before those that wait
    one.finish()
    assert lucky.result() == 25
    one.die()
    one.die()
    assert isinstance(culprit.exception(), WorkerDied)
    assert one.calls == [(5,), (5,), (6,), (6,)]


def test_a_call_that_takes_too_long_is_not_repeated() -> None:
    pool, (one,) = played(1, timeout=0.05)
    with pytest.raises(TimedOut, match=r"0\.05 seconds"):
        pool.submit(square, 1).result()
    assert len(one.calls) == 1
    future = pool.submit(square, 2)
    one.finish()
    assert future.result() == 4


def test_a_call_that_ends_in_time_is_not_ended() -> None:
    pool, (one,) = played(1, timeout=0.05)
    first = pool.submit(square, 1)
    one.finish()
    with pytest.raises(TimedOut):
        pool.submit(square, 2).result()
    assert first.result() == 1


def test_a_closed_engine_cancels_what_it_has_and_takes_nothing() -> None:
    released: list[bool] = []
    pool, (one,) = played(1, release=lambda: released.append(True))
    with pool:
        running, waiting = (pool.submit(square, number) for number in range(2))
    assert one.inner.done()
    assert len(one.calls) == 1
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        running.result()
    with pytest.raises(RuntimeError, match="'played' is closed"):
        pool.submit(square, 1)
    pool.close()
    assert released == [True]


def test_where_the_cluster_is_lost_every_call_says_so() -> None:
    released: list[bool] = []
    pool, (one,) = played(1, release=lambda: released.append(True))
    futures = [pool.submit(square, number) for number in range(3)]
    one.inner.set_exception(EngineLost("the scheduler does not answer"))
    assert [str(future.exception()) for future in futures] == ["the scheduler does not answer"] * 3
    assert len(one.calls) == 1
    with pytest.raises(EngineLost):
        pool.submit(square, 1)
    pool.close()
    assert released == [True]


def test_a_process_that_cannot_be_started_fails_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, (one,) = played(1)

    def refuse(*_: object) -> Future[Outcome]:
        raise OSError("no more processes")

    monkeypatch.setattr(one, "start", refuse)
    assert str(pool.submit(square, 1).exception()) == "no more processes"


def test_an_attempt_says_what_was_raised_and_where() -> None:
    def refuse() -> None:
        raise OptionError("no")

    assert attempt(square, [3]) == Outcome(9)
    found = attempt(refuse, [])
    assert isinstance(found.error, OptionError)
    assert "in refuse" in found.trace
