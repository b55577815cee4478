"""Steps of widths, and the greedy ways to take them; the allocators that are made of them have tests of their own."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.axes.factors import Factor
from onnxprune.pruning.width_search import GroupWidths, WidthSearch, WidthStep, cheapest, thinned

A, B = Factor(8), Factor(8)


class Sum:
    """Every position costs 1."""

    def total(self, counts: Mapping[Factor, int]) -> float:
        return float(sum(counts.get(factor, factor.size) for factor in (A, B)))

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return float(count - counts[factor])

    def sharing(self, factor: Factor) -> set[Factor]:
        return set()


class Blocks(Sum):
    """Positions of A cost four times as much where they are no multiple of 4, unless B has all of its own."""

    def total(self, counts: Mapping[Factor, int]) -> float:
        a, b = (counts.get(factor, factor.size) for factor in (A, B))
        return float(a * (1 if a % 4 == 0 or b == B.size else 4) + b)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return self.total({**counts, factor: count}) - self.total(counts)

    def sharing(self, factor: Factor) -> set[Factor]:
        return {A, B} - {factor}


class Search(WidthSearch):
    """Positions of B are worth twice as much as those of A."""

    farthest = 2

    def loss(self, factor: Factor, present: int, place: int) -> float:
        worth = 2 if factor is B else 1
        return worth * float(self.allowed[factor][present] - self.allowed[factor][place])

    def gain(self, step: WidthStep, counts: GroupWidths) -> tuple[float, ...] | None:
        return (-step.loss,)

    def harm(self, step: WidthStep, over: float) -> tuple[float, ...]:
        return (step.loss,)


def search(budget: float) -> Search:
    return Search({A: [2, 4, 6, 8], B: [2, 4, 6, 8]}, Sum(), budget)


def test_steps_lead_one_and_two_places_away() -> None:
    steps = [(step.factor is A, step.width, step.loss, step.price) for step in search(16).steps({A: 4, B: 8}, 1)]
    assert steps == [(True, 6, -2, 2), (True, 8, -4, 4)]
    assert [step.width for step in search(16).steps({A: 4, B: 8}, -1)] == [2, 6, 4]
    assert search(16).steps({A: 4, B: 8}, 1, held=A) == []


def test_room_goes_to_the_greatest_gain() -> None:
    assert search(12).fill({A: 2, B: 2}) == {A: 6, B: 6}
    assert search(12).fill({A: 2, B: 2}, held=B) == {A: 8, B: 2}


def test_an_excess_is_saved_where_it_does_least_harm() -> None:
    assert search(10).save({A: 8, B: 8}, held=B) == {A: 2, B: 8}
    assert search(9).save({A: 8, B: 8}, held=B) is None


def test_bisection_ends_next_to_the_budget() -> None:
    found = search(9).within(lambda share: {A: 8 - 2 * round(3 * share), B: 8}, 0, 1, 8)
    assert found[0][1] == {A: 2, B: 2}
    assert search(11).within(lambda share: {A: 8 - 2 * round(3 * share), B: 8}, 0, 1, 8)[-1][1] == {A: 2, B: 8}
    assert search(16).within(lambda share: {A: 8 - 2 * round(3 * share), B: 8}, 0, 1, 8)[-1][1] == {A: 8, B: 8}


def test_the_cheapest_widths_need_not_be_the_least() -> None:
    allowed = {A: [2, 4, 6, 8], B: [2, 4, 6, 8]}
    assert cheapest(allowed, Sum()) == {A: 2, B: 2}
    assert cheapest(allowed, Blocks()) == {A: 4, B: 2}
    found = Search(allowed, Blocks(), 7)
    assert found.least == {A: 4, B: 2}
    assert found.within(lambda _: {A: 2, B: 2}, 0, 1, 8) == [(1, {A: 4, B: 2})]


def test_of_many_widths_some_are_looked_at() -> None:
    assert thinned([3, 7]) == [3, 7]
    some = thinned(range(5, 505))
    assert len(some) == 24
    assert (some[0], some[-1]) == (5, 504)
    assert some == sorted(set(some))
