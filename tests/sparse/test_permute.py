"""Channels that change places."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Array
from onnxprune.sparse.layers import find_layers
from onnxprune.sparse.patterns import NofM
from onnxprune.sparse.permute import arrange, orders, permuted
from onnxprune.verify import law
from sparse_nets import ready

BRANCHES = """(float[N,4,8,8] x) => (float[N,10] y)
    <float[16,4,3,3] a, float[16] bias, float[16,16,3,3] b, float[8,4,1,1] c, float[12,24,1,1] d, float[12,1,3,3] e,
     float[12,10] f> {
  p = Conv<pads = [1,1,1,1]>(x, a, bias)
  q = Relu(p)
  r = Conv<pads = [1,1,1,1]>(q, b)
  s = Add(r, q)
  t = Conv(x, c)
  u = Concat<axis = 1>(s, t)
  v = Conv(u, d)
  w = Conv<pads = [1,1,1,1], group = 12>(v, e)
  z = GlobalAveragePool(w)
  k = Flatten(z)
  y = MatMul(k, f)
}"""


def kept(scores: Array, pattern: NofM, order: Array | None = None) -> float:
    scores = scores if order is None else scores[order]
    return float((scores * pattern.mask(scores[None, :, None, :], 0)[0, :, 0]).sum())


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 5), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4)]))
def test_an_order_is_one_and_keeps_no_less(seed: int, columns: int, rows: int, cell: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    scores, pattern = rng.random((columns, rows)), NofM(*cell)
    order = arrange(scores, pattern, rng)
    assert sorted(order) == list(range(columns))
    assert kept(scores, pattern, order) >= kept(scores, pattern) - 1e-9


def test_small_orders_are_near_the_best() -> None:
    pattern, gaps = NofM(2, 4), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scores = np.square(rng.standard_normal((8, 3)))
        best = max(
            kept(scores, pattern, np.array([*first, *(c for c in range(8) if c not in first)]))
            for first in itertools.combinations(range(8), 4)
        )
        gaps.append((best - kept(scores, pattern, arrange(scores, pattern, rng))) / max(best - kept(scores, pattern), 1e-9))
    assert np.mean(gaps) < 0.1


def test_permuted_is_the_original() -> None:
    """Through residual sums, concatenations, depthwise convolutions and flattening: constants move, nothing else does."""
    found, _ = ready(BRANCHES)
    model, coupling = found.model, found.coupling
    rng = np.random.default_rng(0)
    chosen = {group.id: rng.permutation(group.size) for group in coupling.groups}
    assert sorted(map(len, chosen.values())) == [8, 12, 16]
    result = permuted(model, coupling, chosen)
    assert result.proto == model.proto
    assert not np.array_equal(result.weights["b"].array(), model.weights["b"].array())
    assert law.compare(result, model, against="original").ok


def test_orders_are_found_for_what_the_pattern_reads() -> None:
    found, _ = ready(BRANCHES)
    model, coupling, pattern = found.model, found.coupling, NofM(2, 4)
    layers = find_layers(model, coupling)[0]
    chosen = orders(model, coupling, layers, pattern)
    assert {len(order) for order in chosen.values()} <= {12, 16}
    assert chosen
    result = permuted(model, coupling, chosen)
    for layer in layers:
        if layer.name in {"b", "f"}:
            scores = [np.square(layer.array(m).astype(float)).reshape(layer.array(m).shape[1], -1) for m in (model, result)]
            assert kept(scores[1], pattern) >= kept(scores[0], pattern)


def test_an_order_of_half_the_constants_would_not_be_proven() -> None:
    found, _ = ready(BRANCHES)
    model, coupling = found.model, found.coupling
    result = permuted(model, coupling, {group.id: np.arange(group.size)[::-1].copy() for group in coupling.groups})
    result.weights["b"] = model.weights["b"]
    assert not law.compare(result, model, against="original").ok


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(1, 4)], ids=str)
def test_one_column_too_many_in_a_cell_finds_another(pattern: NofM) -> None:
    scores = np.zeros((8, 1))
    scores[: 2 * pattern.n] = 1.0
    order = arrange(scores, pattern, np.random.default_rng(0))
    assert kept(scores, pattern, order) == 2 * pattern.n


def test_channels_that_a_list_names_stay_in_place() -> None:
    text = """(float[N,4,8,8] x) => (float[N,8,8,8] y)
    <float[16,4,3,3] a, int64[12] list = { 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 15 }, float[16,12,1,1] b, float[8,16,1,1] c> {
      p = Conv<pads = [1,1,1,1]>(x, a)
      q = Gather<axis = 1>(p, list)
      r = Conv(q, b)
      y = Conv(r, c)
    }"""
    found, _ = ready(text)
    layers, _ = find_layers(found.model, found.coupling)
    assert orders(found.model, found.coupling, layers, NofM(2, 4)).keys() == {"b:0"}
