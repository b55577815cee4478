"""Workers of a Dask cluster: the one whose scheduler a user names, or one that is started on this machine.

Dask decides which worker gets a call, and gives it to another one if that dies. A call that takes too long says so itself, from
beside the thread that it runs in, and its worker is restarted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from onnxprune.errors import EngineLost, OptionError, TimedOut, WorkerDied
from onnxprune.options.engines import EngineOptions
from onnxprune.options.version import version
from onnxprune.runtime.engines.address import demand_answer
from onnxprune.runtime.engines.pool import Outcome, Pool, attempt
from onnxprune.runtime.memory import left
from onnxprune.runtime.threads import bounds, threads

__all__ = ["open_dask"]

_HOST = "cluster"
"""Calls are not bound to a machine: their memory is that of all."""
_PRELOAD = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Workers of our own leave interrupts to the process that started them."""
_PATIENCE = 20.0
"""Seconds in which a scheduler has to answer, and a worker to restart."""


def open_dask(options: EngineOptions) -> Pool:
    """The workers of a cluster; one of our own has processes of one thread each, and ends with the engine.

    Raises:
        OptionError: the scheduler does not answer, there are no workers, or they have another version of this package.
    """
    return _joined(options) if options.scheduler else _started(options)


def _started(options: EngineOptions) -> Pool:
    import dask
    from distributed import Client, LocalCluster

    workers = options.workers or threads()
    environment = bounds(options.threads or max(1, threads() // workers))
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.pre-spawn-environ": {**dask.config.get("distributed.nanny.pre-spawn-environ"), **environment},
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # no other port, and nobody but this machine
            memory_limit=None,
            preload=_PRELOAD,
            silence_logs=logging.CRITICAL,
        )
        client = Client(cluster, set_as_default=False)

    def release() -> None:
        client.close()
        for nanny in cluster.workers.values():
            if nanny.pid:  # else Dask waits for seconds for a worker that computes
                with contextlib.suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        cluster.close()

    have = left()
    return _pool(client, workers, {} if have is None else {_HOST: have}, options, environment, release)


def _joined(options: EngineOptions) -> Pool:
    from distributed import Client

    told = f"--scheduler {options.scheduler}"
    demand_answer(options.scheduler, "dask scheduler")
    try:
        client = Client(options.scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{told}: what answers there is no scheduler of Dask: {error}; start one with: dask scheduler"
        ) from error
    try:
        found = client.scheduler_info(n_workers=-1)["workers"]
        _check_versions(client, told, found)
    except BaseException:
        client.close()
        raise
    limits = [int(worker["memory_limit"] or 0) for worker in found.values()]
    memory = {_HOST: sum(limits)} if all(limits) else {}
    return _pool(
        client, min(options.workers or len(found), len(found)), memory, options, bounds(options.threads or 1), client.close
    )


def _check_versions(client: Any, told: str, found: Mapping[str, Any]) -> None:
    """Nothing happens if there are workers, which all have this version of the package."""
    if not found:
        raise OptionError(f"{told}: the scheduler has no workers: start some with: dask worker {client.scheduler.address}")
    for worker, have in client.run(_version, on_error="return").items():
        if isinstance(have, BaseException):
            raise OptionError(f"{told}: worker {worker} cannot import onnxprune ({have}): install onnxprune {version()} there")
        if have != version():
            raise OptionError(f"{told}: worker {worker} has onnxprune {have}: install {version()} there, as here")


def _version() -> str:
    return version()


def _pool(
    client: Any,
    workers: int,
    memory: Mapping[str, int],
    options: EngineOptions,
    environment: Mapping[str, str],
    release: Callable[[], None],
) -> Pool:
    slots = [_Place(client, options.timeout, environment) for _ in range(workers)]
    return Pool("dask", slots, memory, lives=1, release=release)


class _Place:
    """A call that may be under way, on whichever worker Dask chooses."""

    host = _HOST

    def __init__(self, client: Any, timeout: float, environment: Mapping[str, str]) -> None:
        self._client, self._timeout, self._environment = client, timeout, environment
        self._task: Any = None

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        told: Future[Outcome] = Future()
        self._task = self._client.submit(
            _attempt, self._timeout, dict(self._environment), function, list(arguments), pure=False, retries=0
        )

        def look(task: Any) -> None:
            try:
                self._look(task, told)
            except Exception as error:  # noqa: BLE001 - Dask would log it, and nobody be told
                told.set_exception(error)

        self._task.add_done_callback(look)
        return told

    def _look(self, task: Any, told: Future[Outcome]) -> None:
        if task.status == "finished":
            told.set_result(task.result())
        elif task.status == "error":
            error = task.exception()
            if isinstance(error, _LateError):
                threading.Thread(target=self._restart, args=(str(error), told), daemon=True).start()
            else:
                told.set_exception(_raised(error))
        else:
            told.set_exception(EngineLost("the connection to the scheduler of Dask is lost, and with it what was not finished"))

    def _restart(self, worker: str, told: Future[Outcome]) -> None:
        """Restart a worker; one that nobody watches over ends."""
        try:
            self._client.restart_workers([worker], timeout=_PATIENCE, raise_for_error=False)
        except ValueError:
            with contextlib.suppress(Exception):  # it is gone in the middle of the call
                self._client.run(os._exit, 1, workers=[worker], wait=False)
        told.set_exception(TimedOut(f"it took longer than {self._timeout:g} seconds, and its process was ended"))

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _raised(error: BaseException) -> BaseException:
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerDied("the workers of Dask that it was given to died, one after the other: they may be short of memory")
    return error


class _LateError(Exception):
    """A call takes too long on the worker of this address. Raised, since Dask would call again for a result that a worker had."""


def _attempt(timeout: float, environment: Mapping[str, str], function: Callable[..., Any], arguments: Sequence[Any]) -> Outcome:
    """Call a function on a worker."""
    from distributed import get_worker

    os.environ.update(environment)
    if not timeout:
        return attempt(function, arguments)
    done: Future[Outcome] = Future()
    threading.Thread(target=lambda: done.set_result(attempt(function, arguments)), daemon=True).start()
    try:
        return done.result(timeout)
    except TimeoutError:
        raise _LateError(get_worker().address) from None
