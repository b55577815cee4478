"""Times of models: remembered, or measured in batches beside a yardstick. Devices run this module, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from onnxprune.latency.cache import LatencyCache

__all__ = ["TimingProgress", "Timings"]

M = TypeVar("M")
"""A model that can be timed, in any form."""

TimingProgress = Callable[[str, int, int], None]
"""Called with what is done, the steps done, and the number of steps."""

_AT_ONCE = 128
_BYTES = 2**28
"""Models that are timed in turns: how many, and the bytes of their constants."""
_STRIDE = 32
"""Models between two measurements of the yardstick."""
_YARDSTICK = "yardstick"


class Timings(Generic[M]):
    """Milliseconds by digest.

    A machine that others use has quick moments and slow ones. The yardstick is timed in every batch, and the times of the batch
    are given as they would be had the yardstick taken as long as when it was first timed.

    Attributes:
        models: what may be timed, by digest.
        timed: how many were timed rather than remembered.
    """

    def __init__(
        self,
        timer: Callable[[Sequence[M]], list[float | None]],
        cache: LatencyCache,
        yardstick: M,
        nbytes: Callable[[M], int],
        progress: TimingProgress | None = None,
    ) -> None:
        """Nothing is timed or read yet.

        Args:
            timer: gives the milliseconds of one run of each model, ``None`` of one that does not run.
            cache: where times are kept.
            yardstick: a model that runs.
            nbytes: the bytes of the constants of a model.
            progress: is told how far it is.
        """
        self._timer, self._cache, self._progress = timer, cache, progress
        self._yardstick, self._nbytes = yardstick, nbytes
        self._times: dict[str, float | None] = {}
        self._loaded = False
        self._pending: dict[str, float | None] = {}
        self.models: dict[str, M] = {}
        self.timed = 0

    def get(self, digest: str) -> float | None:
        """The milliseconds of a model that was measured; ``None`` if it does not run."""
        return self._pending.get(digest, self._times.get(digest))

    def unknown(self, digests: Iterable[str]) -> list[str]:
        """Those of some digests whose time is not known."""
        self._load()
        return [digest for digest in digests if digest not in self._times]

    def measure(self) -> None:
        """Time the models whose time is not known; what is interrupted keeps the batches that are done."""
        todo = self.unknown(self.models)
        done = 0
        for batch in self._batches(todo):
            self._tell("timing layers", done, len(todo))
            self._keep(dict(zip(batch, self._taken(batch), strict=True)))
            done += len(batch)
        self._tell("timing the model", len(todo), len(todo))

    def repeat(self, digests: Sequence[str]) -> bool:
        """Time models that are not known once more, of which the least time counts; whether there are any.

        `settle` makes them known.
        """
        todo = self.unknown(dict.fromkeys(digests))
        for digest, ms in zip(todo, self._taken(todo), strict=True):
            before = self._pending.get(digest)
            self._pending[digest] = ms if before is None or (ms is not None and ms < before) else before
        return bool(todo)

    def settle(self) -> None:
        """Make what was repeated known."""
        self._keep(self._pending)
        self._pending = {}

    def _load(self) -> None:
        if not self._loaded:
            self._times |= self._cache.load()
            self._loaded = True

    def _batches(self, digests: Sequence[str]) -> Iterator[list[str]]:
        """Models that fit in memory together."""
        batch: list[str] = []
        held = 0
        for digest in digests:
            nbytes = self._nbytes(self.models[digest])
            if batch and (len(batch) == _AT_ONCE or held + nbytes > _BYTES):
                yield batch
                batch, held = [], 0
            batch.append(digest)
            held += nbytes
        if batch:
            yield batch

    def _taken(self, digests: Sequence[str]) -> list[float | None]:
        """The times of models in this moment, set right by the yardstick."""
        if not digests:
            return []
        models: list[M] = []
        for at, digest in enumerate(digests):
            models += [self.models[digest]] if at % _STRIDE else [self._yardstick, self.models[digest]]
        found = list(zip(models, self._timer(models), strict=True))
        marks = [ms for model, ms in found if model is self._yardstick and ms]
        if marks and not self._times.get(_YARDSTICK):
            self._keep({_YARDSTICK: min(marks)})
        pace = (self._times.get(_YARDSTICK) or 1.0) / min(marks) if marks else 1.0
        return [None if ms is None else ms * pace for model, ms in found if model is not self._yardstick]

    def _keep(self, times: dict[str, float | None]) -> None:
        self._times |= times
        self._cache.store(times)
        self.timed += len(times)

    def _tell(self, what: str, done: int, steps: int) -> None:
        if self._progress:
            self._progress(what, done, steps)
