"""Widths by error curves, against trying every combination."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.axes.coupling import CouplingGroup
from onnxprune.axes.factors import Factor
from onnxprune.pruning import knapsack
from onnxprune.pruning.knapsack import Curve, choose_widths


@dataclass
class Products:
    """Prices that are sums of products of widths."""

    terms: Sequence[tuple[float, tuple[Factor, ...]]]

    def total(self, counts: Mapping[Factor, int]) -> float:
        return sum(price * math.prod(counts.get(f, f.size) for f in factors) for price, factors in self.terms)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return self.total({**counts, factor: count}) - self.total(counts)

    def sharing(self, factor: Factor) -> set[Factor]:
        return {other for _, factors in self.terms if factor in factors for other in factors} - {factor}


@dataclass
class Instance:
    groups: list[CouplingGroup]
    curves: dict[str, Curve]
    allowed: dict[str, list[int]]
    prices: Products

    def choose(self, share: float) -> dict[str, int] | None:
        return choose_widths(self.groups, self.curves, self.allowed, self.prices, share * self.prices.total({}))

    def error(self, widths: Mapping[str, int]) -> float:
        return sum(float(self.curves[group.id].error[group.size - widths[group.id]]) for group in self.groups)

    def share(self, widths: Mapping[str, int]) -> float:
        return self.prices.total({group.factor: widths[group.id] for group in self.groups}) / self.prices.total({})

    def every(self, share: float) -> Iterator[dict[str, int]]:
        """All widths within a budget."""
        for chosen in product(*self.allowed.values()):
            widths = dict(zip(self.allowed, chosen, strict=True))
            if self.share(widths) <= share * (1 + 1e-12):
                yield widths

    def best(self, share: float) -> float | None:
        return min((self.error(widths) for widths in self.every(share)), default=None)


def instance(seed: int, *, count: int = 3, coupled: bool = False, convex: bool = True) -> Instance:
    """Groups of unlike cost and worth; `coupled`: a chain of layers, each as wide as two groups are."""
    rng = np.random.default_rng(seed)
    groups, curves, allowed = [], {}, {}
    for number in range(count):
        factor = Factor(int(rng.integers(2, 7)))
        groups.append(CouplingGroup(f"g{number}", factor, True, (), "channels"))
        steps = rng.exponential(10 ** rng.uniform(-2, 1), factor.size)
        errors = np.cumsum([0, *(np.sort(steps) if convex else steps)])
        curves[groups[-1].id] = Curve(rng.permutation(factor.size), errors, {})
        allowed[groups[-1].id] = sorted({factor.size, *rng.integers(1, factor.size + 1, 4).tolist()})
    factors = [group.factor for group in groups]
    terms: list[tuple[float, tuple[Factor, ...]]] = [(rng.uniform(1, 10), (factor,)) for factor in factors]
    if coupled:
        terms = [*terms[:1], *((rng.uniform(1, 10), pair) for pair in pairwise(factors)), *terms[-1:]]
    return Instance(groups, curves, allowed, Products(terms))


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.floats(0.05, 1))
def test_never_over_budget(seed: int, coupled: bool, convex: bool, share: float) -> None:
    case = instance(seed, count=5, coupled=coupled, convex=convex)
    found = case.choose(share)
    least = case.share({name: widths[0] for name, widths in case.allowed.items()})
    assert (found is None) == (least > share)
    if found is not None:
        assert case.share(found) <= share * (1 + 1e-12)
        assert all(width in case.allowed[name] for name, width in found.items())


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("convex", [True, False])
def test_as_good_as_every_combination(coupled: bool, convex: bool) -> None:
    """Nearly always the best, and nearly as good elsewhere: it is a search from one relaxation."""
    ratios = []
    for seed in range(60):
        case = instance(seed, coupled=coupled, convex=convex)
        share = np.random.default_rng(seed).uniform(0.3, 0.9)
        best, found = case.best(share), case.choose(share)
        assert (best is None) == (found is None)
        if best and found is not None:
            ratios.append(case.error(found) / best)
    assert len(ratios) > 40
    assert np.mean(np.array(ratios) < 1 + 1e-9) > 0.95
    assert max(ratios) < 1.2


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(551, id="the relaxation, and what it leaves is spent"),
        pytest.param(112, id="one group wider, and the others save it"),
        pytest.param(191, id="one group narrower, and the others spend it"),
        pytest.param(286, id="again after an exchange that helped"),
        pytest.param(181, id="several widths at once"),
        pytest.param(703, id="no more is saved than must be"),
        pytest.param(333, id="prices at the widths that the others have by now"),
    ],
)
def test_each_step_of_the_search_is_needed(seed: int) -> None:
    """Five groups whose best widths are not found without that step."""
    case = instance(seed, count=5, coupled=bool(seed & 1), convex=bool(seed & 2))
    found = case.choose(0.5)
    assert found is not None
    assert case.error(found) == pytest.approx(case.best(0.5), rel=1e-9)


@pytest.mark.parametrize("coupled", [False, True])
def test_more_budget_is_no_worse(coupled: bool) -> None:
    for seed in range(15):
        case = instance(seed, coupled=coupled)
        found = [case.choose(share) for share in np.linspace(0.3, 1, 8)]
        errors = [case.error(widths) for widths in found if widths is not None]
        assert all(after <= before * (1 + 1e-9) for before, after in pairwise(errors))
        assert errors[-1] == 0, "all of it: nothing goes"


def test_no_single_step_improves() -> None:
    """In a network too large to try everything, too."""
    case = instance(0, count=30, coupled=True)
    found = case.choose(0.5)
    assert found is not None
    assert case.share(found) > 0.49
    for name, widths in case.allowed.items():
        for width in widths:
            other = {**found, name: width}
            assert case.share(other) > 0.5 or case.error(other) >= case.error(found)


def test_it_spreads_a_convex_loss_and_not_a_free_one() -> None:
    factors = [Factor(100), Factor(100)]
    groups = [CouplingGroup(name, factor, True, (), "mlp") for name, factor in zip("ab", factors, strict=True)]
    curves = {"a": Curve(np.arange(100), np.linspace(0, 1, 101) ** 2, {}), "b": Curve(np.arange(100), np.zeros(101), {})}
    prices = Products([(1, (factors[0],)), (1, (factors[1],))])
    allowed = {name: list(range(10, 101)) for name in "ab"}
    assert choose_widths(groups, curves, allowed, prices, 110) == {"a": 100, "b": 10}
    curves["b"] = curves["a"]
    assert choose_widths(groups, curves, allowed, prices, 110) == {"a": 55, "b": 55}


@dataclass
class Blocks(Products):
    """What kernels compute: blocks of 16."""

    def total(self, counts: Mapping[Factor, int]) -> float:
        return sum(price * math.prod(-(-counts.get(f, f.size) // 16) * 16 for f in factors) for price, factors in self.terms)

    @property
    def whole(self) -> float:
        return self.total({})


@pytest.mark.parametrize(
    ("power", "alone", "beside"),
    [
        pytest.param(1.5, {"a": 24, "b": 24}, {"a": 32, "b": 16}, id="a part of a block loses little less than a whole one"),
        pytest.param(4.0, {"a": 24, "b": 24}, {"a": 24, "b": 24}, id="it loses much less"),
    ],
)
def test_parts_of_blocks_stay_where_they_lose_little_less(power: float, alone: dict[str, int], beside: dict[str, int]) -> None:
    factors = [Factor(32), Factor(32)]
    groups = [CouplingGroup(name, factor, True, (), "channels") for name, factor in zip("ab", factors, strict=True)]
    curves = {name: Curve(np.arange(32), np.linspace(0, 1, 33) ** power, {}) for name in "ab"}
    terms: list[tuple[float, tuple[Factor, ...]]] = [(1.0, (factor,)) for factor in factors]
    allowed = {name: [8, 16, 24, 32] for name in "ab"}
    assert choose_widths(groups, curves, allowed, Products(terms), 48) == alone
    found = choose_widths(groups, curves, allowed, Products(terms), 48, Blocks(terms))
    assert found is not None
    assert sorted(found.values()) == sorted(beside.values())


def test_what_kernels_compute_is_free_where_nothing_must_go() -> None:
    case = instance(5, count=4, coupled=True)
    found = choose_widths(case.groups, case.curves, case.allowed, case.prices, case.prices.total({}), Blocks(case.prices.terms))
    assert found == {group.id: group.size for group in case.groups}


def test_trials_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "_TRIALS", 0)
    case = instance(1, count=6, coupled=True)
    found = case.choose(0.5)
    assert found is not None
    assert case.share(found) <= 0.5


def test_the_same_every_time() -> None:
    assert instance(3, count=8, coupled=True).choose(0.4) == instance(3, count=8, coupled=True).choose(0.4)


def test_no_groups() -> None:
    nothing = Products([])
    assert choose_widths([], {}, {}, nothing, 0.0) == {}
    fixed = Products([(2.0, ())])
    assert choose_widths([], {}, {}, fixed, 1.0) is None
    assert choose_widths([], {}, {}, fixed, 2.0) == {}


def test_a_curve_keeps_what_goes_last() -> None:
    curve = Curve(np.array([2, 0, 3, 1]), np.arange(5.0), {})
    assert [curve.keep(width).tolist() for width in (4, 3, 2, 1)] == [[0, 1, 2, 3], [0, 1, 3], [1, 3], [1]]
