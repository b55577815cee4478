"""A function of a few widths, known at some points and linear in between, for the kinds of widths that kernels tell apart.

A kernel that works on blocks of 16 channels takes as long for 20 as for 32, and another kernel may take a width of 21. So
multiples of 16, other multiples of 4 and all other widths have points of their own, and a width lies between two of its kind.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["WIDTH_MULTIPLES", "GridInterpolator", "Point", "WidthGrid", "multiple_of", "spaced_widths"]

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


class WidthGrid:
    """Every combination of some points along each axis."""

    def __init__(self, axes: Sequence[AxisPoints]) -> None:
        self.axes = [{kind: sorted(set(points)) for kind, points in axis.items() if points} for axis in axes]

    def points(self) -> Iterator[Point]:
        """Every combination."""
        return itertools.product(*(sorted({width for points in axis.values() for width in points}) for axis in self.axes))

    def monotone(self, values: Mapping[Point, float]) -> dict[Point, float]:
        """The values, none above that of a larger width of its kind: a measurement is too high where something disturbed it."""
        result = dict(values)
        for axis, kinds in enumerate(self.axes):
            for points in kinds.values():
                for low, high in reversed(list(itertools.pairwise(points))):
                    for point in [point for point in result if point[axis] == low]:
                        wider = (*point[:axis], high, *point[axis + 1 :])
                        result[point] = min(result[point], result[wider])
        return result

    def interpolator(self, values: Mapping[Point, float]) -> GridInterpolator:
        """A function of any widths that has these values at the points."""
        return GridInterpolator(self, values)


class GridInterpolator:
    """A function of widths: given at the points of a grid, linear along each axis between two points of one kind."""

    def __init__(self, grid: WidthGrid, values: Mapping[Point, float]) -> None:
        self._grid, self._values = grid, dict(values)
        self._known: dict[Point, float] = {}

    def points(self) -> Iterator[Point]:
        """The points at which the function is given."""
        return iter(self._values)

    def with_values(self, values: Mapping[Point, float]) -> GridInterpolator:
        """Another function on the same grid."""
        return GridInterpolator(self._grid, values)

    def __call__(self, widths: Point) -> float:
        """The value at some widths: linear along each axis between two points of their kind, constant beyond the last."""
        value = self._known.get(widths)
        if value is None:
            value = self._known[widths] = self._interpolated(widths)
        return value

    def _interpolated(self, widths: Point) -> float:
        corners: list[tuple[Point, float]] = [((), 1.0)]
        for width, kinds in zip(widths, self._grid.axes, strict=True):
            points = kinds.get(multiple_of(width)) or next(iter(kinds.values()))
            ends = _around(points, width)
            corners = [((*point, end), share * part) for point, share in corners for end, part in ends]
        return sum(self._values[point] * share for point, share in corners)


def _around(points: Sequence[float], width: float) -> list[tuple[float, float]]:
    """The points around a width, with their shares in it."""
    at = bisect_right(points, width)
    if at in {0, len(points)} or points[at - 1] == width:
        return [(points[max(at - 1, 0)], 1.0)]
    low, high = points[at - 1], points[at]
    share = (width - low) / (high - low)
    return [(low, 1 - share), (high, share)]
