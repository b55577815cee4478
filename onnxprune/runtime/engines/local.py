"""Processes of this machine, by joblib's loky: one executor for each, so that a process that dies takes no other call with it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from onnxprune.errors import WorkerDied
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime.engines.pool import Outcome, Pool, attempt, then
from onnxprune.runtime.memory import left
from onnxprune.runtime.threads import bounds, threads

__all__ = ["open_local"]

_HOST = "localhost"
_PATIENCE = 0.5
"""Seconds after which a process notices that the one which started it is gone."""


def open_local(options: EngineOptions) -> Pool:
    """Processes of this machine, each with its share of the threads of this one; they start with their first calls."""
    workers = options.workers or threads()
    environment = bounds(options.threads or max(1, threads() // workers))
    have = left()
    slots = [_Process(environment) for _ in range(workers)]
    return Pool("local", slots, {} if have is None else {_HOST: have}, timeout=options.timeout)


class _Process:
    """A process of loky's, by an executor of its own."""

    host = _HOST

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._executor: Any = None

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        told: Future[Outcome] = Future()

        def call(executor: Any) -> None:
            begun()
            then(executor.submit(attempt, function, arguments), told, told.set_result, _raised)

        if self._executor is not None:
            call(self._executor)
        else:  # the time of a call does not begin before the process is there, and has imported what it calls
            executor = self._executor = _executor(self._environment)
            then(executor.submit(_ready, function), told, lambda _: call(executor), _raised)
        told.add_done_callback(self._look)
        return told

    def _look(self, told: Future[Outcome]) -> None:
        """The next call needs a new process if this one is gone."""
        if isinstance(told.exception(), WorkerDied):
            self._executor = None

    def end(self) -> None:
        executor = self._executor
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)
            self._executor = None


def _executor(environment: dict[str, str]) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(1, timeout=None, env=environment, initializer=_settle, initargs=(os.getpid(),))


def _ready(function: Callable[..., Any]) -> None:
    """Nothing happens, in a process that has just started: it had to import the function to get here."""


def _raised(error: BaseException) -> BaseException:
    from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError

    if not isinstance(error, BrokenProcessPool | ShutdownExecutorError):
        return error
    found = re.search(r"\{(.*?)\}", str(error))  # the signal or the status
    how = f" ({found[1]})" if found else ""
    return WorkerDied(
        f"a worker process died{how}, and again when its work was repeated: it may be short of memory: try fewer --workers"
    )


def _settle(parent: int) -> None:
    """A process leaves interrupts to the one that started it, ends when that is gone, and not because it has grown.

    loky would end one that has 300 MB more than at first, as one that keeps a model has, and with it what it keeps.
    """
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PATIENCE)
    os._exit(1)
