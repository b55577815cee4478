"""Branches that are terms of sums."""

from __future__ import annotations

from typing import Any

import pytest

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import linear_readers
from onnxprune.pruning.branches import Branch, find_branches

WEIGHTS = "<float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3, float[1,4,1,1] b>"


def found(text: str, outputs: str = "float[N,4,8,8] y") -> list[Branch]:
    """The branches of a graph that reads ``x``."""
    analysis: Any = analyze(parse(f"(float[N,4,8,8] x) => ({outputs}) {WEIGHTS} {{ {text} }}"))
    layers = {reader.node.index for reader in linear_readers(analysis.model, analysis.coupling)}
    return find_branches(analysis.model, analysis.shapes, layers)


def told(text: str, outputs: str = "float[N,4,8,8] y") -> list[tuple[str, str, list[int]]]:
    return [(one.total, one.rest, sorted(one.nodes)) for one in found(text, outputs)]


RESIDUAL = "a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) d = Relu(c) e = Conv(d, w3) s = Add(e, r) y = Relu(s)"


def test_a_residual_block() -> None:
    assert told(RESIDUAL) == [("s", "r", [2, 3, 4])]


def test_a_sum_of_two_values_is_one_however_it_is_spelled() -> None:
    assert told(RESIDUAL.replace("Add(", "Sum(")) == [("s", "r", [2, 3, 4])]
    assert not told(RESIDUAL.replace("Add(e, r)", "Sum(e, r, a)"))


def test_each_term_with_a_layer_of_its_own_is_a_branch() -> None:
    text = "r = Relu(x) a = Conv(r, w1) c = Conv(r, w2) s = Add(a, c) y = Relu(s)"
    assert sorted(told(text)) == [("s", "a", [2]), ("s", "c", [1])]
    one, other = found(text)
    assert one.overlaps(other)


@pytest.mark.parametrize(
    "text",
    [
        "a = Conv(x, w1) s = Add(a, b) y = Relu(s)",  # a bias
        "a = Conv(x, w1) r = Relu(a) s = Sigmoid(a) y = Add(r, s)",  # no layer of its own
        "a = Conv(x, w1) y = Add(a, a)",
        "a = Conv(x, w1) g = GlobalAveragePool(x) y = Add(g, a)",  # what would be left has another shape
        "a = Conv(x, w1) r = Relu(x) y = Mul(a, r)",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not told(text)


def test_a_term_that_broadcasts_may_go() -> None:
    assert told("r = Relu(x) g = GlobalAveragePool(r) a = Conv(g, w1) y = Add(a, r)") == [("y", "r", [1, 2])]


def test_what_something_else_reads_stays() -> None:
    shared = "r = Relu(x) a = Conv(r, w1) c = Conv(a, w2) s = Add(c, r) y = Concat<axis=1>(s, a)"
    assert told(shared, "float[N,8,8,8] y") == [("s", "r", [2])]
    text = "r = Relu(x) z = Conv(r, w1) c = Conv(z, w2) y = Add(c, r)"
    assert told(text, "float[N,4,8,8] y, float[N,4,8,8] z") == [("y", "r", [2])]


def test_blocks_in_a_row_and_inside_each_other() -> None:
    text = "r = Relu(x) a = Conv(r, w1) s = Add(a, r) c = Conv(s, w2) t = Add(c, s) d = Conv(t, w3) y = Add(d, r)"
    assert told(text) == [("s", "r", [1]), ("t", "s", [3]), ("y", "r", [1, 2, 3, 4, 5])]
    first, second, around = found(text)
    assert not first.overlaps(second)
    assert first.overlaps(around)
