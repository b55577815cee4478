"""A grid is exact at its points, linear between those of one kind, and never extrapolates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.latency.interpolation import WIDTH_MULTIPLES, GridInterpolator, WidthGrid, multiple_of, spaced_widths

Axes = list[dict[int, list[float]]]


def split(widths: list[int]) -> dict[int, list[float]]:
    """Widths by kind."""
    return {kind: [width for width in widths if multiple_of(width) == kind] for kind in WIDTH_MULTIPLES}


AXES = st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=6).map(split), min_size=1, max_size=3)


def filled(axes: Axes, seed: int) -> tuple[GridInterpolator, dict[tuple[float, ...], float]]:
    grid = WidthGrid(axes)
    rng = np.random.default_rng(seed)
    values = {point: float(rng.uniform(1, 9)) for point in grid.points()}
    return grid.interpolator(values), values


@pytest.mark.parametrize(("width", "kind"), [(16, 16), (32, 16), (4, 4), (24, 4), (1, 1), (17, 1), (30, 1)])
def test_kinds(width: int, kind: int) -> None:
    assert multiple_of(width) == kind


@given(st.sets(st.integers(1, 2000), min_size=1), st.integers(2, 9))
def test_spaced_keeps_the_ends_and_no_more_than_asked_for(widths: set[int], count: int) -> None:
    found = spaced_widths(widths, count)
    assert found == sorted(set(found))
    assert set(found) <= widths
    assert {min(widths), max(widths)} <= set(found)
    assert len(found) == len(widths) if len(widths) <= count else 2 <= len(found) <= count


def test_spaced_is_closer_where_widths_are_small() -> None:
    gaps = np.diff(spaced_widths(range(16, 1025, 16), 5))
    assert (np.diff(gaps) > 0).all()


@given(AXES, st.integers(0, 9))
def test_exact_at_the_points(axes: Axes, seed: int) -> None:
    interpolator, values = filled(axes, seed)
    for point, value in values.items():
        assert interpolator(point) == pytest.approx(value, rel=1e-12)


@given(st.tuples(*[st.floats(-3, 3)] * 4), st.integers(1, 96), st.integers(1, 96))
def test_exact_everywhere_for_what_is_linear_in_each_width(factors: tuple[float, ...], left: int, right: int) -> None:
    widths = [1, 4, 8, 13, 16, 40, 64, 96, 92, 95]
    grid = WidthGrid([split(widths)] * 2)
    a, b, c, d = factors

    def function(x: float, y: float) -> float:
        return a + b * x + c * y + d * x * y

    interpolator = grid.interpolator({(x, y): function(x, y) for x, y in grid.points()})
    ends = {kind: (min(some), max(some)) for kind, some in split(widths).items()}
    x, y = (float(np.clip(width, *ends[multiple_of(width)])) for width in (left, right))
    assert interpolator((left, right)) == pytest.approx(function(x, y), abs=1e-6)


def test_kinds_are_apart() -> None:
    interpolator = WidthGrid([{16: [16, 48], 4: [20, 44], 1: [17, 47]}]).interpolator(
        {(16,): 1, (48,): 3, (20,): 10, (44,): 40, (17,): 100, (47,): 400}
    )
    assert [interpolator((width,)) for width in (16, 32, 48)] == [1, 2, 3]
    assert interpolator((32 - 4,)) == 20
    assert interpolator((32,)) == 2
    assert interpolator((27,)) == 200


def test_a_kind_without_points_takes_those_of_another() -> None:
    interpolator = WidthGrid([{16: [16, 48], 4: [], 1: []}]).interpolator({(16,): 1, (48,): 3})
    assert interpolator((24,)) == 1.5


def test_constant_beyond_the_ends() -> None:
    interpolator = WidthGrid([{16: [16, 48]}]).interpolator({(16,): 1, (48,): 3})
    assert (interpolator((0,)), interpolator((64,))) == (1, 3)


def test_other_values_on_the_same_grid() -> None:
    interpolator = WidthGrid([{16: [16, 48]}]).interpolator({(16,): 1, (48,): 3})
    assert list(interpolator.points()) == [(16,), (48,)]
    assert interpolator.with_values({(16,): 10, (48,): 30})((32,)) == 20
    assert interpolator((32,)) == 2


def test_without_axes_there_is_one_point() -> None:
    grid = WidthGrid([])
    assert list(grid.points()) == [()]
    assert grid.interpolator({(): 7.0})(()) == 7


@given(AXES, st.integers(0, 9))
def test_monotone_lowers_what_is_above_a_larger_width_of_its_kind(axes: Axes, seed: int) -> None:
    _, values = filled(axes, seed)
    found = WidthGrid(axes).monotone(values)
    assert found.keys() == values.keys()
    for (low, small), (high, large) in itertools.permutations(found.items(), 2):
        kinds = all(multiple_of(a) == multiple_of(b) and a <= b for a, b in zip(low, high, strict=True))
        assert not kinds or small <= large
    for point, value in found.items():
        larger = [values[other] for other in values if all(map(_reaches, point, other))]
        assert value == min(larger)


def _reaches(low: float, high: float) -> bool:
    return low == high or (low < high and multiple_of(low) == multiple_of(high))


def test_monotone_leaves_what_grows() -> None:
    grid = WidthGrid([{16: [16, 48], 4: [20, 44]}])
    values: dict[tuple[float, ...], float] = {(16,): 1.0, (48,): 3.0, (20,): 10.0, (44,): 40.0}
    assert grid.monotone(values) == values
