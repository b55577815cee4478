"""Widths from error curves and prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.axes import Factor
from onnxprune.coupling import CouplingGroup
from onnxprune.knapsack import Curve, choose


class Sum:
    """Prices that add: so much for each position of each factor, and for each pair of positions of neighbours."""

    def __init__(self, factors: Sequence[Factor], each: Sequence[float], pair: float) -> None:
        self.factors, self.each, self.pair = factors, each, pair

    def total(self, counts: Mapping[Factor, int]) -> float:
        sizes = [counts.get(factor, factor.size) for factor in self.factors]
        pairs = sum(a * b for a, b in pairwise(sizes))
        return sum(price * size for price, size in zip(self.each, sizes, strict=True)) + self.pair * pairs

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return self.total({**counts, factor: count}) - self.total(counts)


def problem(seed: int, sizes: Sequence[int], pair: float) -> tuple[list[CouplingGroup], dict[str, Curve], Sum]:
    rng = np.random.default_rng(seed)
    groups = [CouplingGroup(f"g{i}", Factor(size), True, (), "mlp") for i, size in enumerate(sizes)]
    curves = {}
    for group in groups:
        error = np.concatenate([[0.0], np.cumsum(rng.random(group.size) ** 3)])
        curves[group.id] = Curve(np.arange(group.size), error, {})
    return groups, curves, Sum([group.factor for group in groups], rng.random(len(sizes)) + 0.1, pair)


def error_of(curves: Mapping[str, Curve], groups: Sequence[CouplingGroup], counts: Mapping[str, int]) -> float:
    return sum(float(curves[group.id].error[group.size - counts[group.id]]) for group in groups)


def price(prices: Sum, groups: Sequence[CouplingGroup], counts: Mapping[str, int]) -> float:
    return prices.total({group.factor: counts[group.id] for group in groups})


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.lists(st.integers(2, 6), min_size=1, max_size=4), st.sampled_from([0.0, 0.3]), st.floats(0.2, 0.95)
)
def test_never_over_the_budget_and_near_the_optimum(seed: int, sizes: list[int], pair: float, share: float) -> None:
    groups, curves, prices = problem(seed, sizes, pair)
    allowed = {group.id: list(range(1, group.size + 1)) for group in groups}
    budget = share * prices.total({})
    found = choose(groups, curves, allowed, prices, budget)
    choices = [dict(zip(allowed, widths, strict=True)) for widths in product(*allowed.values())]
    possible = [counts for counts in choices if price(prices, groups, counts) <= budget]
    if found is None:
        assert not possible
        return
    assert price(prices, groups, found) <= budget
    whole = error_of(curves, groups, {group.id: 1 for group in groups})
    least = min(error_of(curves, groups, counts) for counts in possible)
    assert error_of(curves, groups, found) <= least + 0.25 * whole + 1e-9


def test_a_larger_budget_costs_no_more_error() -> None:
    groups, curves, prices = problem(0, [24, 32, 16, 40, 8], 0.05)
    allowed = {group.id: list(range(1, group.size + 1)) for group in groups}
    errors = []
    for share in (0.3, 0.5, 0.7, 0.9, 1.0):
        found = choose(groups, curves, allowed, prices, share * prices.total({}))
        assert found is not None
        errors.append(error_of(curves, groups, found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_what_costs_nothing_goes_first() -> None:
    groups, curves, prices = problem(1, [8, 8], 0.0)
    free = {**curves, "g0": Curve(np.arange(8), np.zeros(9), {})}
    prices.each = [1.0, 1.0]
    found = choose(groups, free, {"g0": list(range(1, 9)), "g1": list(range(1, 9))}, prices, 12.0)
    assert found is not None
    assert found["g1"] == 8
    assert found["g0"] <= 4


@pytest.mark.parametrize("width", [1, 3, 5])
def test_a_curve_keeps_what_goes_last(width: int) -> None:
    curve = Curve(np.array([4, 0, 3, 1, 2]), np.arange(6.0), {})
    assert curve.keep(width).tolist() == sorted([4, 0, 3, 1, 2][5 - width :])
