"""Runs of one session on many batches, several at a time, so that results do not depend on the number of threads.

Where several threads share one operator, ONNX Runtime and BLAS cut its sums elsewhere for each number of threads: the last bits
differ. Here each batch has a thread of its own, and adds in one order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from onnxprune.runtime.memory import batch_bytes, spare
from onnxprune.runtime.threads import threads

__all__ = ["at_once", "in_order", "map_ordered"]

_PART = 2
"""The part of the memory that batches take which are under way."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(nbytes: int | None = None) -> int:
    """How many runs there is room for at a time, if each takes so many bytes; by default as a batch of calibration does."""
    return max(1, min(threads(), spare(_PART, 2**62) // max(batch_bytes() if nbytes is None else nbytes, 1)))


def map_ordered(work: Callable[[Item], Result], items: Iterable[Item], count: int) -> Generator[Result]:
    """The results of a function in the order of its arguments, ``count`` of them under way at a time.

    Arguments are drawn as results are taken, in the thread of the caller. Where the function raises, the generator does.
    """
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count) as pool:
        # in a context with what numpy is told of errors
        yield from in_order(lambda item: pool.submit(copy_context().run, work, item), items, count)


def in_order(submit: Callable[[Item], Future[Result]], items: Iterable[Item], count: int) -> Generator[Result]:
    """The results of what a function submits, in the order of its arguments, ``count`` of them under way at a time; as there."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) == count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
