"""How a total is shared out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.ir.weights import Weight
from onnxprune.options.registries import ALLOCATIONS
from onnxprune.options.registry import SAMPLES
from onnxprune.sparse.allocation import counts_by_curves, threshold
from sparse_nets import layers

MODEL, LAYERS = layers()
SIZES = {layer.name: layer.size for layer in LAYERS}
for seed, layer in enumerate(LAYERS):
    drawn = np.random.default_rng(seed).standard_normal(MODEL.weights[layer.name].shape).astype(np.float32)
    MODEL.weights[layer.name] = Weight(layer.name, None, drawn)


@given(st.sampled_from(sorted({*ALLOCATIONS} - {*ALLOCATIONS.needing(SAMPLES)})), st.integers(0, sum(SIZES.values())))
def test_shares_add_up(name: str, total: int) -> None:
    counts = ALLOCATIONS[name].value(LAYERS, MODEL, total)
    assert sum(counts.values()) == max(total, len(LAYERS))
    assert all(1 <= counts[name] <= size for name, size in SIZES.items())


def test_erk_keeps_more_of_small_layers() -> None:
    counts = ALLOCATIONS["erk"].value(LAYERS, MODEL, sum(SIZES.values()) // 2)
    shares = {name: counts[name] / size for name, size in SIZES.items()}
    assert shares["depth"] == 1
    assert shares["skip"] > shares["inner"]


def test_lamp_is_its_definition() -> None:
    scores = []
    for layer in LAYERS:
        squares = np.sort(MODEL.weights[layer.name].array().astype(float).ravel() ** 2)
        scores += [(squares[at] / squares[at:].sum(), layer.name) for at in range(len(squares))]
    best = [name for _, name in sorted(scores, reverse=True)[:600]]
    assert ALLOCATIONS["lamp"].value(LAYERS, MODEL, 600) == {name: best.count(name) for name in SIZES}


def test_global_is_one_threshold() -> None:
    counts = ALLOCATIONS["global"].value(LAYERS, MODEL, 500)
    values = {name: np.sort(np.abs(MODEL.weights[name].array().ravel()))[::-1] for name in SIZES}
    smallest = min(values[name][count - 1] for name, count in counts.items())
    largest = max(values[name][count] for name, count in counts.items() if count < SIZES[name])
    assert smallest > largest


def test_a_threshold_is_in_standard_deviations() -> None:
    counts = threshold(LAYERS, MODEL, 1.0)
    assert all(counts[name] == pytest.approx(0.317 * size, abs=3 * size**0.5) for name, size in SIZES.items())
    assert threshold(LAYERS, MODEL, 0.0) == SIZES


def test_curves_give_more_to_layers_that_cost_more() -> None:
    cheap = {layer.name: {round(share * layer.size): (1 - share) ** 3 for share in (0.6, 0.3, 0.1)} for layer in LAYERS}
    cheap["inner"] = {count: 30 * error for count, error in cheap["inner"].items()}
    total = sum(SIZES.values()) // 3
    counts = counts_by_curves(LAYERS, cheap, total, 1.0)
    assert sum(counts.values()) == total
    shares = {name: counts[name] / size for name, size in SIZES.items()}
    assert shares["inner"] > 1.5 * max(share for name, share in shares.items() if name == "first")


@given(st.integers(5, sum(SIZES.values())), st.sampled_from([0.5, 1.0]), st.integers(0, 2**31))
def test_curves_share_any_total(total: int, exponent: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = {layer.name: {round(share * layer.size): float(rng.random()) for share in (0.6, 0.3, 0.1)} for layer in LAYERS}
    counts = counts_by_curves(LAYERS, curves, total, exponent)
    assert sum(counts.values()) == total
    assert all(1 <= counts[name] <= size for name, size in SIZES.items())


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("total", [40, 400, 640])
def test_shares_by_curves_are_the_best_there_are(total: int, exponent: float) -> None:
    """Two layers, every split tried: below the counts that were measured, between them, and above."""
    pair = LAYERS[:2]
    curves = {"first": {200: 0.002, 100: 0.05, 30: 0.4}, "inner": {400: 0.002, 200: 0.07, 60: 0.3}}
    counts = counts_by_curves(pair, curves, total, exponent)

    def error(name: str, count: float) -> float:
        known = sorted(curves[name])
        x, y = np.log(known), np.log([curves[name][at] for at in known])
        inner = int(np.clip(np.searchsorted(x, np.log(count)) - 1, 0, 1))
        slope = (y[inner + 1] - y[inner]) / (x[inner + 1] - x[inner])
        return float(np.exp(y[inner] + slope * (np.log(count) - x[inner]))) ** exponent if count < SIZES[name] else 0.0

    splits = [(k, total - k) for k in range(6, SIZES["first"] + 1) if 12 <= total - k <= SIZES["inner"]]
    best = min(error("first", k) + error("inner", rest) for k, rest in splits)
    assert error("first", counts["first"]) + error("inner", counts["inner"]) == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_shares_by_curves_of_layers_with_costs_are_the_best_there_are(share: float, exponent: float) -> None:
    """A weight of the first layer takes eight times as long; every split with the same time tried."""
    pair, costs = LAYERS[:2], {"first": 8.0, "inner": 1.0}
    sizes = [SIZES[layer.name] for layer in pair]
    curves = {layer.name: {round(kept * layer.size): (1 - kept) ** 2 for kept in (0.6, 0.3, 0.1)} for layer in pair}
    total = share * (8 * sizes[0] + sizes[1])
    counts = counts_by_curves(pair, curves, total, exponent, costs)
    assert 8 * counts["first"] + counts["inner"] == pytest.approx(total, abs=0.02 * total + 9)
    assert counts["first"] / sizes[0] < counts["inner"] / sizes[1]

    def error(kept: float) -> float:
        known, values = np.log([0.1, 0.3, 0.6]), np.log([(1 - one) ** 2 for one in (0.1, 0.3, 0.6)])
        inner = int(np.clip(np.searchsorted(known, np.log(kept)) - 1, 0, 1))
        slope = (values[inner + 1] - values[inner]) / (known[inner + 1] - known[inner])
        return float(np.exp(values[inner] + slope * (np.log(kept) - known[inner]))) ** exponent if kept < 1 else 0.0

    splits = [(k / sizes[0], (total - 8 * k) / sizes[1]) for k in range(6, sizes[0] + 1)]
    best = min(error(a) + error(b) for a, b in splits if 0.02 < b <= 1)
    found = error(counts["first"] / sizes[0]) + error(counts["inner"] / sizes[1])
    assert found <= best * 1.03


def test_a_curve_that_falls_as_weights_go_is_taken_for_noise() -> None:
    """More weights cannot hurt: an error counts for every smaller number of weights, too."""
    pair = LAYERS[:2]
    inner = {400: 0.02, 200: 0.07, 60: 0.3}
    noisy, risen = ({"first": {200: 0.2, 100: low, 30: 0.4}, "inner": inner} for low in (0.01, 0.2))
    for total in (200, 400, 600):
        assert counts_by_curves(pair, noisy, total, 1.0) == counts_by_curves(pair, risen, total, 1.0)
