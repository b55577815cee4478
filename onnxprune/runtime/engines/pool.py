"""Calls that wait for a process and for memory, and what becomes of them when processes die or take too long.

How a process is started and reached is the business of a `Slot`, of which each engine has its own kind. It takes one call at a
time, so that the call which a process died of is known.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from onnxprune.errors import EngineLost, TimedOut, WorkerDied

__all__ = ["Outcome", "Pool", "Slot", "attempt", "then"]

R = TypeVar("R")

_LIVES = 2
"""Processes that may die of one call. The first death may be of something else: of a system short of memory, or of a person."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        value: what the function returned.
        error: what it raised; ``None`` where it did not.
        trace: where, as text.
    """

    value: Any = None
    error: BaseException | None = None
    trace: str = ""


def attempt(function: Callable[..., Any], arguments: Sequence[Any]) -> Outcome:
    """Call a function; it runs in the other process. An error keeps its type if it survives pickling, else it is told in words.

    `SystemExit` and the like end no process: a worker is not the function's to end.
    """
    try:
        return Outcome(function(*arguments))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's to know
        return Outcome(error=_portable(error), trace=traceback.format_exc())


def _portable(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        try:
            if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301 - our own
                return error
        except Exception:  # noqa: BLE001, S110 - many raise many things here
            pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def then(
    inner: Future[Any], told: Future[Outcome], go_on: Callable[[Any], object], raised: Callable[[BaseException], BaseException]
) -> None:
    """Go on with the result of a future of a library; its error, or one on the way, is told to another future.

    Args:
        inner: of the library.
        told: gets the error.
        go_on: gets the result.
        raised: makes an error of the library one of ours.
    """

    def look(_: Future[Any]) -> None:
        error = inner.exception()
        try:
            if error is None:
                go_on(inner.result())
        except Exception as other:  # noqa: BLE001 - the process is gone before it got the next call
            error = other
        if error is not None:
            told.set_exception(raised(error))

    inner.add_done_callback(look)


class Slot(Protocol):
    """A place for one process that takes one call at a time; a new process comes where one is gone."""

    @property
    def host(self) -> str:
        """The machine: slots of one share its memory."""

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        """Call a function by `attempt`; ``begun`` is called when the process is there. Raises `WorkerDied` in its future."""

    def end(self) -> None:
        """The process is gone, and the call in it raises `WorkerDied`."""


@dataclass(eq=False, slots=True)
class _Call:
    """A call; ``late`` after it took too long."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    memory: int
    alone: bool
    future: Future[Any] = field(default_factory=Future)
    deaths: int = 0
    late: bool = False
    timer: threading.Timer | None = None


class Pool:
    """An engine: calls start in the order in which they were submitted, as soon as there is a process and memory for them.

    Attributes:
        name: of the engine, as a user gives it.
        workers: processes that take calls.
    """

    def __init__(
        self,
        name: str,
        slots: Sequence[Slot],
        memory: Mapping[str, int],
        *,
        timeout: float = 0,
        lives: int = _LIVES,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing runs yet.

        Args:
            name: of the engine.
            slots: its processes.
            memory: bytes that calls may take, by host; a host that is not there has no bound.
            timeout: seconds that a call may take; 0 where slots see to that, or nobody does.
            lives: how often a call whose process dies is started; 1 where the cluster repeats it.
            release: called once, after all processes are gone.
        """
        self.name, self.workers = name, len(slots)
        self._memory, self._timeout, self._lives, self._release = memory, timeout, lives, release
        self._slots = self._free = tuple(slots)
        self._waiting: deque[_Call] = deque()
        self._running: dict[Slot, _Call] = {}
        self._lock = threading.RLock()
        self._refusal: Exception | None = None
        self._ended = False

    def submit(self, function: Callable[..., R], /, *arguments: Any, memory: int = 0, alone: bool = False) -> Future[R]:
        """Call a function in one of the processes.

        Args:
            function: at the top of a module.
            arguments: what it is called with.
            memory: bytes that it needs; it starts when its machine has so much that no other call was promised. One that
                needs more than there is starts when its machine has no other call.
            alone: whether no other call may run beside it, as for measuring times.

        Raises:
            EngineLost: the cluster is gone.
            RuntimeError: the engine was closed.
        """
        call = _Call(function, arguments, memory, alone)
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            self._waiting.append(call)
        self._admit()
        return call.future

    def close(self) -> None:
        """End all processes; calls that are not finished are cancelled."""
        with self._lock:
            ended, self._ended = self._ended, True
        if ended:
            return
        self._refuse(RuntimeError(f"the engine {self.name!r} is closed"), CancelledError())
        for slot in self._slots:
            slot.end()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse(self, why: Exception, told: BaseException) -> None:
        """Take no more calls; those that are there end with an error."""
        with self._lock:
            self._refusal = self._refusal or why
            unfinished = [*self._running.values(), *self._waiting]
            self._waiting.clear()
        for call in unfinished:
            if call.timer is not None:
                call.timer.cancel()
            if not (isinstance(told, CancelledError) and call.future.cancel()):
                _settle(call.future, Outcome(error=told))

    def _admit(self) -> None:
        """Start what can start."""
        while (found := self._next()) is not None:
            slot, call = found
            try:
                inner = slot.start(call.function, call.arguments, partial(self._begun, slot, call))
            except Exception as error:  # noqa: BLE001 - the process cannot be started; the caller is told
                inner = Future()
                inner.set_exception(error)
            inner.add_done_callback(partial(self._done, slot, call))

    def _next(self) -> tuple[Slot, _Call] | None:
        """The first call, if it may start now, and where."""
        with self._lock:
            while self._waiting and self._free:
                call = self._waiting[0]
                slot = None if self._hindered(call) else next((one for one in self._free if self._fits(one, call)), None)
                if slot is None:
                    return None
                self._waiting.popleft()
                if not call.deaths and not call.future.set_running_or_notify_cancel():
                    continue
                self._free = tuple(one for one in self._free if one is not slot)
                self._running[slot] = call
                return slot, call
        return None

    def _hindered(self, call: _Call) -> bool:
        return bool(self._running) and (call.alone or any(other.alone for other in self._running.values()))

    def _fits(self, slot: Slot, call: _Call) -> bool:
        """Whether the machine of a slot has memory for a call."""
        beside = [other.memory for one, other in self._running.items() if one.host == slot.host]
        have = self._memory.get(slot.host)
        return have is None or not beside or sum(beside) + call.memory <= have

    def _begun(self, slot: Slot, call: _Call) -> None:
        if self._timeout:
            call.timer = threading.Timer(self._timeout, self._expire, (slot, call))
            call.timer.daemon = True
            call.timer.start()

    def _expire(self, slot: Slot, call: _Call) -> None:
        """A call took too long."""
        with self._lock:
            if self._running.get(slot) is not call or self._refusal is not None:
                return
            call.late = True  # from now on the slot is left here, and not before its process is gone
        slot.end()
        self._leave(slot)
        self._admit()

    def _done(self, slot: Slot, call: _Call, inner: Future[Outcome]) -> None:
        """A process has finished a call, or is gone."""
        outcome = Outcome(error=error) if (error := inner.exception()) is not None else inner.result()
        with self._lock:
            if call.timer is not None:
                call.timer.cancel()
            late = call.late
            if not late:
                self._leave(slot)
            again = False
            if isinstance(error, WorkerDied) and not late and self._refusal is None:
                call.deaths += 1
                again = call.deaths < self._lives
            if again:
                self._waiting.appendleft(call)
        if isinstance(error, EngineLost):
            self._refuse(error, error)
        if isinstance(error, WorkerDied) and late:
            outcome = Outcome(error=TimedOut(f"it took longer than {self._timeout:g} seconds, and its process was ended"))
        if not again:
            _settle(call.future, outcome)
        self._admit()

    def _leave(self, slot: Slot) -> None:
        with self._lock:
            del self._running[slot]
            self._free = (*self._free, slot)


def _settle(future: Future[Any], outcome: Outcome) -> None:
    """Give an outcome to a future, unless it has one; where the other process was goes along with an error, as its cause."""
    with contextlib.suppress(InvalidStateError):
        if outcome.error is None:
            future.set_result(outcome.value)
            return
        if outcome.trace:
            outcome.error.__cause__ = RuntimeError(f"in another process:\n{outcome.trace}")
        future.set_exception(outcome.error)
