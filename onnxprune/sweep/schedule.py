"""In which order tasks may start: what several share is worked out by one of them, and the others wait for that one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

__all__ = ["Schedule"]


class Sharing(Protocol):
    """What shares stages."""

    @property
    def key(self) -> str: ...

    @property
    def stages(self) -> Sequence[str]: ...


T = TypeVar("T", bound=Sharing)


@dataclass
class Schedule(Generic[T]):
    """Tasks that wait, in order. A stage that nobody has worked out yet is claimed by the first task that starts with it.

    Each task is looked at a few times, however many there are: one that waits for a stage is kept beside it.

    Attributes:
        waiting: those that may start, as far as is known.
    """

    waiting: deque[T] = field(default_factory=deque)
    _known: set[str] = field(default_factory=set)
    _claimed: dict[str, str] = field(default_factory=dict)
    _behind: dict[str, list[T]] = field(default_factory=dict)

    def add(self, tasks: Iterable[T]) -> None:
        """Put tasks behind those that wait."""
        self.waiting.extend(tasks)

    def next(self) -> T | None:
        """The next task that may start, which then has started; ``None`` if there is none at the moment."""
        while self.waiting:
            task = self.waiting.popleft()
            missing = [stage for stage in task.stages if stage not in self._known]
            claimed = next((stage for stage in missing if stage in self._claimed), None)
            if claimed is not None:
                self._behind.setdefault(claimed, []).append(task)
                continue
            self._claimed |= dict.fromkeys(missing, task.key)
            return task
        return None

    def over(self, task: T, *, done: bool) -> None:
        """A task that had started is over: where it failed, the next one works its stages out."""
        for stage in task.stages:
            if self._claimed.get(stage) == task.key:
                del self._claimed[stage]
                if done:
                    self._known.add(stage)
                self.waiting.extendleft(reversed(self._behind.pop(stage, [])))

    def __len__(self) -> int:
        return len(self.waiting) + sum(map(len, self._behind.values()))
