"""Processes of a Ray cluster: the one whose address a user names, or one that is started on this machine. Each is an actor."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from onnxprune.errors import EngineLost, OptionError, WorkerDied
from onnxprune.options.engines import EngineOptions
from onnxprune.options.version import version
from onnxprune.runtime.engines.address import demand_answer
from onnxprune.runtime.engines.pool import Outcome, Pool, attempt, then
from onnxprune.runtime.threads import bounds, threads

__all__ = ["open_ray"]

_HOST = "cluster"
"""Ray places actors; the memory of their calls is that of all machines."""


_THIS = "auto"
"""The address that stands for the cluster of this machine, or of ``RAY_ADDRESS``."""


def open_ray(options: EngineOptions) -> Pool:
    """Actors of a cluster, one for each worker; a cluster of our own ends with the engine.

    A program that has called ``ray.init`` keeps its cluster: actors start there, unless another address is named.

    Raises:
        OptionError: there is no cluster at the address, or its machines have another version of this package.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to others
    import ray

    workers = options.workers or threads()
    each = options.threads or (1 if options.scheduler else max(1, threads() // workers))
    ours = not ray.is_initialized()
    if ours:
        _connect(options, workers * each)
    try:
        have = ray.cluster_resources()
        workers = options.workers or max(1, int(have.get("CPU", 1)) // each)
        slots = [_Actor(each) for _ in range(workers)]
        if options.scheduler:
            _check_version(f"--scheduler {options.scheduler}", slots[0])
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    memory = {_HOST: int(have["memory"])} if "memory" in have else {}
    return Pool("ray", slots, memory, timeout=options.timeout, release=ray.shutdown if ours else lambda: None)


def _connect(options: EngineOptions, count: int) -> None:
    import ray

    quiet: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not options.scheduler:
        ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
        return
    if options.scheduler != _THIS:
        demand_answer(options.scheduler, "ray start --head")
    try:
        ray.init(address=options.scheduler, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"--scheduler {options.scheduler}: no cluster of Ray answers there: {reason}") from error


def _check_version(told: str, slot: _Actor) -> None:
    import ray

    try:
        have = ray.get(slot.made().ready.remote(None))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise OptionError(f"{told}: no actor can be started there ({reason}): install onnxprune {version()} there") from error
    if have != version():
        raise OptionError(f"{told}: its machines have onnxprune {have}: install {version()} there, as here")


class Worker:
    """What runs in the process of an actor."""

    def ready(self, function: Callable[..., Any] | None) -> str:
        """The version there; what it is to call was imported to get here."""
        return version()

    def attempt(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Outcome:
        """Call a function."""
        return attempt(function, arguments)


class _Actor:
    """An actor, which is made when it is first needed, and again after it died."""

    host = _HOST

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._actor: Any = None

    def made(self) -> Any:
        """The actor."""
        if self._actor is None:
            import ray

            environment = {"env_vars": bounds(self._threads)}
            kind = ray.remote(num_cpus=self._threads, max_restarts=0, runtime_env=environment)(Worker)
            self._actor = kind.remote()
        return self._actor

    def start(self, function: Callable[..., Any], arguments: Sequence[Any], begun: Callable[[], None]) -> Future[Outcome]:
        told: Future[Outcome] = Future()
        actor = self.made()

        def call(_: object) -> None:
            begun()
            then(actor.attempt.remote(function, list(arguments)).future(), told, told.set_result, _raised)

        told.add_done_callback(self._look)
        then(actor.ready.remote(function).future(), told, call, _raised)
        return told

    def _look(self, told: Future[Outcome]) -> None:
        """The next call needs a new actor if this one is gone."""
        if isinstance(told.exception(), WorkerDied):
            self._actor = None

    def end(self) -> None:
        if self._actor is not None:
            import ray

            ray.kill(self._actor, no_restart=True)
            self._actor = None


def _raised(error: BaseException) -> BaseException:
    from ray.exceptions import RayActorError, RaySystemError

    if isinstance(error, RayActorError):
        return WorkerDied("an actor of Ray died, and again when its work was repeated: it may be short of memory")
    if isinstance(error, RaySystemError):
        return EngineLost(f"the cluster of Ray is lost, and with it what was not finished: {error}")
    return error
