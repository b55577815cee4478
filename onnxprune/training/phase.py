"""A phase of training, as recipes describe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Phase"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimizer of its own.

    Attributes:
        name: as progress and reports show it.
        epochs: that it takes.
        begin: called once, before it; prunes or rewinds.
        each: called before each step with its number, from 0, and the number of steps of the phase; updates masks.
        penalty: added to the loss of each step.
        factor: of the learning rate, at a share of the phase; as the options say if ``None``.
        ready: share of the phase from which on its epochs may be the result.
        start: whether the weights that it begins with are the result where no epoch scores better.
        end: called once, after it.
        sized: whether the learning rate of each weight follows its size, where the options give none (`Training.share`).
        groups: the largest learning rate of parameters whose names end so; weight decay leaves them alone.
        snapshot: number of the epoch before which the weights are kept, for rewinding; below 0 for none.
    """

    name: str
    epochs: int
    begin: Callable[[], None] | None = None
    each: Callable[[int, int], None] | None = None
    penalty: Callable[[], Tensor] | None = None
    factor: Callable[[float], float] | None = None
    ready: float = 0.0
    start: bool = False
    end: Callable[[], None] | None = None
    sized: bool = False
    groups: Mapping[str, float] = field(default_factory=dict)
    snapshot: int = -1
