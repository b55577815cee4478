"""A function of a few widths, known at some points and linear in between, for the kinds of widths that kernels tell apart.

A kernel that works on blocks of 16 channels takes as long for 20 as for 32, and another kernel may take a width of 21. So
multiples of 16, other multiples of 4 and all other widths have points of their own, and a width lies between two of its kind.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["WIDTH_MULTIPLES", "GridInterpolator", "multiple_of", "spaced_widths"]

WIDTH_MULTIPLES = (16, 4, 1)
"""A width is of the first kind that it is a multiple of."""

Point = tuple[float, ...]
AxisPoints = Mapping[int, Sequence[float]]
"""Along one axis: for each kind that occurs, some widths."""


def multiple_of(width: float) -> int:
    """The kind of a width."""
    return next(kind for kind in WIDTH_MULTIPLES if kind == 1 or width % kind == 0)


def spaced_widths(widths: Iterable[float], count: int) -> list[float]:
    """At most ``count`` of some widths, ascending, the least and the largest among them; closer where they are small.

    Small widths are where fixed costs and half-empty blocks bend the curve.
    """
    ascending = sorted(widths)
    if len(ascending) <= count:
        return ascending
    low, high = math.sqrt(ascending[0]), math.sqrt(ascending[-1])
    wanted = [(low + (high - low) * step / (count - 1)) ** 2 for step in range(count)]
    return sorted({min(ascending, key=lambda width: abs(width - want)) for want in wanted})


class GridInterpolator:
    """Values at every combination of the points of each axis, and what follows for other widths."""

    def __init__(self, axes: Sequence[AxisPoints]) -> None:
        self._axes = [{kind: sorted(set(points)) for kind, points in axis.items() if points} for axis in axes]
        self._values: dict[Point, float] = {}
        self._known: dict[Point, float] = {}

    def places(self) -> Iterator[Point]:
        """Every combination."""
        return itertools.product(*(sorted({width for points in axis.values() for width in points}) for axis in self._axes))

    def settled(self, values: Mapping[Point, float]) -> dict[Point, float]:
        """The values, none above that of a larger width of its kind: a measurement is too high where something disturbed it."""
        result = dict(values)
        for axis, kinds in enumerate(self._axes):
            for points in kinds.values():
                for low, high in reversed(list(itertools.pairwise(points))):
                    for place in [place for place in result if place[axis] == low]:
                        wider = (*place[:axis], high, *place[axis + 1 :])
                        result[place] = min(result[place], result[wider])
        return result

    def fill(self, values: Mapping[Point, float]) -> None:
        """Set the value of every place."""
        self._values = dict(values)
        self._known = {}

    def __call__(self, widths: Point) -> float:
        """The value at some widths: linear along each axis between two points of their kind, constant beyond the last."""
        value = self._known.get(widths)
        if value is None:
            value = self._known[widths] = self._interpolated(widths)
        return value

    def _interpolated(self, widths: Point) -> float:
        corners: list[tuple[Point, float]] = [((), 1.0)]
        for width, kinds in zip(widths, self._axes, strict=True):
            points = kinds.get(multiple_of(width)) or next(iter(kinds.values()))
            ends = _around(points, width)
            corners = [((*place, end), share * part) for place, share in corners for end, part in ends]
        return sum(self._values[place] * share for place, share in corners)


def _around(points: Sequence[float], width: float) -> list[tuple[float, float]]:
    """The points around a width, with their shares in it."""
    at = bisect_right(points, width)
    if at in {0, len(points)} or points[at - 1] == width:
        return [(points[max(at - 1, 0)], 1.0)]
    low, high = points[at - 1], points[at]
    share = (width - low) / (high - low)
    return [(low, 1 - share), (high, share)]
