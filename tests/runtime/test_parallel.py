"""Work on several things at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from onnxprune.runtime import memory
from onnxprune.runtime.parallel import at_once, map_ordered


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order(count: int) -> None:
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0 and count > 1:
            later.wait()  # for the one behind it
        later.set()
        return number * number

    assert list(map_ordered(work, range(9), count)) == [number * number for number in range(9)]


def test_no_more_is_drawn_than_is_under_way() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(10):
            drawn.append(number)
            yield number

    results = map_ordered(str, items(), 3)
    assert next(results) == "0"
    assert drawn == [0, 1, 2]
    results.close()
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 3])
def test_what_the_work_raises_is_raised(count: int) -> None:
    def work(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(map_ordered(work, [1, 2, 0, 3], count))


def test_memory_bounds_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_THREADS", "16")
    monkeypatch.setenv(memory.VARIABLE, "8G")
    assert at_once() == 16
    assert at_once(2**30) == 4
    assert at_once(2**40) == at_once(2**33) == 1
    monkeypatch.setenv(memory.VARIABLE, "1G")
    assert at_once() == 4


def test_the_context_is_that_of_the_caller() -> None:
    def work(number: float) -> float:
        return float(np.float32(number) * np.float32(number))

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        list(map_ordered(work, [1e30, 1e30], 2))
    with np.errstate(over="ignore"):
        assert list(map_ordered(work, [1e30, 1e30], 2)) == [np.inf, np.inf]
