"""The algebra of index sets: properties on random factors, and the cases of unification one by one."""

from __future__ import annotations

import doctest
import itertools
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.axes import factors as axes
from onnxprune.axes.factors import Factor, Positions, direct_sum, fix, index, labels, leaves, length, mix, product, stride
from onnxprune.axes.unification import unify

TREES = st.recursive(
    st.integers(1, 4).map(Factor),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(product) | st.lists(inner, min_size=1, max_size=3).map(direct_sum),
    max_leaves=5,
)
"""Factors over distinct leaves, nested as products and sums."""


@st.composite
def factors(draw: st.DrawFn, size: int, depth: int = 3) -> Factor:
    """Factors of one size: leaves, products over its divisors, sums of two parts."""
    kind = draw(st.sampled_from(["leaf", "product", "sum"])) if depth and size > 1 else "leaf"
    if kind == "leaf":
        return Factor(size)
    if kind == "sum":
        first = draw(st.integers(1, size - 1))
        return direct_sum([draw(factors(part, depth - 1)) for part in (first, size - first)])
    major = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    return product([draw(factors(part, depth - 1)) for part in (major, size // major)])


SUBSETS = st.integers(0, 2**16)
"""Which positions remain: one bit each, of every leaf alike."""


def kept(leaf: Factor, bits: int) -> Positions:
    return np.array([i for i in range(leaf.size) if bits >> i & 1 or i == bits % leaf.size])


def keep_some(factor: Factor, bits: int) -> dict[Factor, Positions]:
    return {leaf: kept(leaf, bits >> at) for at, leaf in enumerate(dict.fromkeys(leaves(factor)))}


def shape_of(factor: Factor) -> str:
    return repr(factor)


def split(size: int, cuts: Sequence[int]) -> list[int]:
    """Sizes of the parts of ``size`` between ``cuts``."""
    bounds = sorted({0, size, *(cut % size for cut in cuts)})
    return [b - a for a, b in itertools.pairwise(bounds)]


# Index maps


@given(TREES)
def test_index_of_everything_is_every_position(factor: Factor) -> None:
    assert index(factor, {}).tolist() == list(range(factor.size))


@given(TREES, SUBSETS)
def test_length_counts_the_index(factor: Factor, bits: int) -> None:
    keep = keep_some(factor, bits)
    found = index(factor, keep)
    assert length(factor, {leaf: len(positions) for leaf, positions in keep.items()}) == len(found)
    assert (np.diff(found) > 0).all()


@given(TREES, SUBSETS)
def test_removing_positions_of_a_leaf_removes_what_its_labels_name(factor: Factor, bits: int) -> None:
    for leaf in leaves(factor):
        removed = sorted(set(range(leaf.size)) - set(kept(leaf, bits).tolist()))
        remaining = index(factor, {leaf: kept(leaf, bits)})
        assert remaining.tolist() == np.flatnonzero(~np.isin(labels(factor, leaf), removed)).tolist()


@given(TREES)
def test_every_position_has_a_label(factor: Factor) -> None:
    tags = [labels(factor, leaf) for leaf in leaves(factor)]
    assert (np.max([tag >= 0 for tag in tags], axis=0)).all()


def test_index_maps_by_hand() -> None:
    a, b, h, d = Factor(3), Factor(4), Factor(2), Factor(3)
    assert index(direct_sum((a, b)), {a: np.array([0, 2]), b: np.array([1])}).tolist() == [0, 2, 4]
    assert index(product((h, d)), {d: np.array([0, 2])}).tolist() == [0, 2, 3, 5]
    assert index(product((h, d)), {h: np.array([1])}).tolist() == [3, 4, 5]
    assert labels(product((h, d)), h).tolist() == [0, 0, 0, 1, 1, 1]
    assert labels(direct_sum((a, h)), h).tolist() == [-1, -1, -1, 0, 1]


def test_units_and_empty_parts_vanish() -> None:
    leaf = Factor(3)
    assert product((Factor(1), leaf)) is leaf
    assert direct_sum((leaf, Factor(0))) is leaf
    assert (product(()).size, direct_sum(()).size) == (1, 0)


# Unification


@given(st.integers(2, 12), st.lists(st.integers(1, 11), max_size=3), st.lists(st.integers(1, 11), max_size=3))
def test_sums_are_cut_at_the_union_of_their_boundaries(size: int, first: list[int], second: list[int]) -> None:
    a, b = (direct_sum(map(Factor, split(size, cuts))) for cuts in (first, second))
    unify(a, b, "clash")
    assert [leaf.size for leaf in leaves(a)] == split(size, [*first, *second])
    assert leaves(a) == leaves(b)
    assert not any(leaf.fixed for leaf in leaves(a))


@given(st.permutations([2, 3, 4]), st.permutations([2, 3, 4]), st.booleans())
def test_unify_is_symmetric_in_its_effect(first: list[int], second: list[int], sums: bool) -> None:
    build = direct_sum if sums else product
    results = []
    for swapped in (False, True):
        a, b = build(map(Factor, first)), build(map(Factor, second))
        unify(*((b, a) if swapped else (a, b)), "clash")
        results.append((shape_of(a), shape_of(b), [bool(leaf.fixed) for leaf in (*leaves(a), *leaves(b))]))
    assert results[0] == results[1]


@given(st.data(), st.sampled_from([8, 12, 16, 24]), SUBSETS)
def test_what_is_unified_has_one_index_unless_it_is_fixed(data: st.DataObject, size: int, bits: int) -> None:
    a, b, c = (data.draw(factors(size)) for _ in range(3))
    for x, y in ((a, b), (b, c)):
        unify(x, y, "clash")
    free = [leaf for leaf in dict.fromkeys([*leaves(a), *leaves(b), *leaves(c)]) if not leaf.fixed]
    keep = {leaf: kept(leaf, bits >> at) for at, leaf in enumerate(free)}
    assert index(a, keep).tolist() == index(b, keep).tolist() == index(c, keep).tolist()


def test_sizes_that_differ_are_a_contradiction() -> None:
    with pytest.raises(ValueError, match="an index set of 3 positions cannot be one of 4"):
        unify(Factor(3), Factor(4), "clash")


def test_products_align_from_the_minor_end() -> None:
    flat, heads = product((Factor(4), Factor(6))), product((Factor(2), Factor(12)))
    unify(flat, heads, "clash")
    assert [leaf.size for leaf in leaves(flat)] == [2, 2, 6]
    assert leaves(flat) == leaves(heads)


def test_a_leaf_becomes_what_it_meets() -> None:
    leaf, whole = Factor(6), product((Factor(2), Factor(3)))
    unify(leaf, whole, "clash")
    assert shape_of(leaf) == shape_of(whole) == "(2 3)"


def test_misaligned_products_are_fixed_with_the_reason() -> None:
    a, b = product((Factor(2), Factor(3))), product((Factor(3), Factor(2)))
    unify(a, b, "clash")
    assert {leaf.fixed for leaf in (*leaves(a), *leaves(b))} == {"clash"}


def test_a_product_over_a_sum_is_a_sum_of_products() -> None:
    major, minor = Factor(5), Factor(4)
    whole, parts = product((major, minor)), direct_sum((Factor(8), Factor(12)))
    unify(whole, parts, "clash")
    assert [leaf.size for leaf in leaves(major)] == [2, 3]
    assert set(leaves(parts)) == set(leaves(whole)) == {*leaves(major), minor.root}
    keep = {minor.root: np.array([1, 3])}
    assert index(whole, keep).tolist() == index(parts, keep).tolist()


def test_a_product_that_does_not_divide_a_sum_is_fixed() -> None:
    whole, parts = product((Factor(5), Factor(4))), direct_sum((Factor(7), Factor(13)))
    unify(whole, parts, "clash")
    assert {leaf.fixed for leaf in (*leaves(whole), *leaves(parts))} == {"clash"}


def test_packed_queries_keys_and_values_share_heads_and_channels() -> None:
    three, h, d = Factor(3), Factor(4), Factor(6)
    packed, parts = product((three, h, d)), [Factor(24) for _ in range(3)]
    unify(packed, direct_sum(parts), "clash")
    split_heads = [product((Factor(4), Factor(6))) for _ in parts]
    for part, heads in zip(parts, split_heads, strict=True):
        unify(part, heads, "clash")
    assert not any(leaf.fixed for leaf in leaves(packed))
    assert [leaves(part) for part in parts] == [[h.root, d.root]] * 3
    assert labels(packed, h.root).tolist() == np.tile(np.repeat(np.arange(4), 6), 3).tolist()


def test_marks_survive_later_refinement() -> None:
    fixed, mixed, free = Factor(10), Factor(10), Factor(10)
    fix(fixed, "order")
    mix(mixed, "statistics")
    for leaf in (fixed, mixed, free):
        unify(leaf, direct_sum((Factor(4), Factor(6))), "clash")
        unify(leaf, direct_sum((Factor(6), product((Factor(2), Factor(2))))), "clash")
    assert [(leaf.size, leaf.fixed) for leaf in leaves(fixed)] == [(4, "order"), (2, "order"), (2, "order"), (2, "order")]
    assert {leaf.mixed for leaf in leaves(mixed)} == {"statistics"}
    assert not any(leaf.fixed or leaf.mixed for leaf in leaves(free))


def test_marks_cross_over_and_the_first_reason_stays() -> None:
    a, b, c = Factor(4), Factor(4), Factor(4)
    fix(b, "first")
    unify(a, b, "clash")
    unify(c, a, "clash")
    fix(c, "second")
    assert a.root is b.root is c.root
    assert a.root.fixed == "first"


def test_a_sum_knows_where_each_leaf_is() -> None:
    one, two, other = Factor(3), Factor(2), Factor(5)
    axis = direct_sum((one, product((one, two)), other, one))
    assert {leaf: [start for start, _ in found] for leaf, found in axis.spans.items()} == {one: [0, 3, 14], two: [3], other: [9]}
    assert [stride(axis, leaf) for leaf in (one, two, other)] == [4, 3, 1]
    unify(other, direct_sum((Factor(1), one.root, Factor(1))), "clash")
    assert [start for start, _ in axis.spans[one.root]] == [0, 3, 10, 14]
    assert stride(axis, Factor(2)) == 0
    assert stride(product((one, one)), one) == 9 - 4


# Size


def test_thousand_nested_concatenations_do_not_recurse() -> None:
    depth = 1000
    growing, other = Factor(2), Factor(2)
    first = growing
    for _ in range(depth):
        growing, other = direct_sum((growing, Factor(2))), direct_sum((other, Factor(2)))
    assert depth >= sys.getrecursionlimit() or sys.getrecursionlimit() < 10 * depth
    unify(growing, other, "clash")
    assert leaves(growing) == leaves(other)
    assert len(index(growing, {first.root: np.array([1])})) == growing.size - 1
    assert labels(other, first.root)[:3].tolist() == [0, 1, -1]


@pytest.mark.parametrize("kind", ["chain", "concatenation", "dense"])
def test_work_grows_linearly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Structural steps (parts looked at), not seconds."""
    steps = 0
    parts: property = vars(Factor)["parts"]

    def counted(self: Factor) -> tuple[Factor, ...]:
        nonlocal steps
        found: tuple[Factor, ...] = parts.__get__(self)
        steps += 1 + len(found)
        return found

    monkeypatch.setattr(axes.Factor, "parts", property(counted))

    def work(count: int) -> int:
        nonlocal steps
        steps = 0
        whole = direct_sum([Factor(2) for _ in range(count)])
        if kind == "chain":  # a residual stream: one set, stated by every node
            stream = product((Factor(4), Factor(6)))
            for _ in range(count):
                unify(stream, product((Factor(4), Factor(6))), "clash")
        elif kind == "concatenation":
            unify(whole, direct_sum([Factor(2) for _ in range(count)]), "clash")
        else:  # one concatenation that meets leaves again and again
            for _ in range(20):
                unify(Factor(whole.size), whole, "clash")
            leaves(whole)
        return steps

    small, large = work(50), work(400)
    assert large <= 8 * small + 100, f"{small} steps for 50, {large} for 400"


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(axes).failed == 0
