"""Lists of positions: permutations against everything that an axis can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.axes.factors import Factor, Positions, direct_sum, index, labels, leaves, length, permuted, product
from onnxprune.axes.unification import pick, unify

LISTS = st.lists(st.integers(0, 11), min_size=1, max_size=14)


def kept(factor: Factor, bits: int) -> Positions:
    chosen = np.flatnonzero([bits >> at & 1 for at in range(factor.size)])
    return chosen if len(chosen) else np.arange(1)


def listed(source: Factor, positions: list[int]) -> Factor:
    """An axis of its own that holds listed positions of another."""
    axis = Factor(len(positions))
    unify(axis, pick(source, np.array(positions), "clash"), "clash")
    return axis


@given(st.data(), st.lists(LISTS, min_size=1, max_size=3), st.sampled_from(["leaf", "sum", "product"]), st.integers(0))
def test_what_is_picked_goes_with_its_source(data: st.DataObject, lists: list[list[int]], shape: str, bits: int) -> None:
    source = Factor(12)
    if shape != "leaf":
        unify(source, direct_sum([Factor(5), Factor(7)]) if shape == "sum" else product([Factor(4), Factor(3)]), "clash")
    found = [(source, listed(source, positions), positions) for positions in lists]
    of = data.draw(st.integers(0, len(found) - 1))
    behind = data.draw(st.lists(st.integers(0, len(lists[of]) - 1), min_size=1, max_size=6))
    found.append((found[of][1], listed(found[of][1], behind), behind))  # a list of what was picked
    cut = data.draw(st.integers(0, len(behind)))
    unify(found[-1][1], direct_sum([Factor(cut), Factor(len(behind) - cut)]), "clash")
    free = dict.fromkeys(leaf for _, axis, _ in found for leaf in leaves(axis) if not leaf.fixed and leaf.size > 1)
    keep = {leaf: kept(leaf, bits >> at) for at, leaf in enumerate(free)}
    for whole, axis, positions in found:
        stays = index(axis, keep)
        assert stays.tolist() == np.flatnonzero(np.isin(positions, index(whole, keep))).tolist()
        assert length(axis, {leaf: len(found) for leaf, found in keep.items()}) == len(stays)
        for leaf in free:
            assert labels(axis, leaf).tolist() == labels(whole, leaf)[positions].tolist()


def test_a_list_splits_its_source_by_how_often_it_names_positions() -> None:
    source = Factor(6)
    axis = listed(source, [5, 0, 5, 2, 0])
    assert (repr(source), repr(axis)) == ("(3+1+2)@", "(1+2+2)@")
    assert labels(axis, leaves(source)[2]).tolist() == [1, 0, 1, -1, 0]


SIZES = st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=3)


@given(SIZES, SIZES, st.booleans(), st.booleans())
def test_axes_without_a_position_unify(one: list[int], other: list[int], summed: bool, flipped: bool) -> None:
    x = direct_sum([Factor(size) for size in one]) if summed else product([Factor(size) for size in one])
    y = product([Factor(size) for size in other])
    if x.size == y.size:
        unify(*((y, x) if flipped else (x, y)), "test")
        assert x.root.size == y.root.size


def test_an_order_of_all_positions_splits_nothing() -> None:
    source = Factor(4)
    axis = listed(source, [3, 2, 1, 0])
    assert source.root.kind == ""
    assert index(axis, {source.root: np.array([0, 1])}).tolist() == [2, 3]
    assert index(listed(source, [0, 1, 2, 3]), {source.root: np.array([2])}).tolist() == [2]


def test_an_axis_that_is_its_own_permutation_stays() -> None:
    axis = Factor(4)
    unify(axis, pick(axis, np.array([1, 0, 3, 2]), "a shuffle is added"), "a shuffle is added")
    assert axis.root.fixed == "a shuffle is added"


@pytest.mark.parametrize("flipped", [False, True])
def test_a_product_keeps_its_order(flipped: bool) -> None:
    grid, order = product([Factor(2), Factor(3)]), np.array([0, 2, 1, 3, 4, 5])
    sides = grid, permuted(product([Factor(2), Factor(3)]), order)
    unify(sides[flipped], sides[not flipped], "clash")
    assert {leaf.fixed for side in sides for leaf in leaves(side)} == {"clash"}


def test_permutations_of_permutations_are_one() -> None:
    leaf, turned = Factor(3), np.array([1, 2, 0])
    twice = permuted(permuted(leaf, turned), turned)
    assert twice.parts == (leaf,)
    assert twice.order.tolist() == [2, 0, 1]
