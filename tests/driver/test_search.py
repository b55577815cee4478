"""Searches: the smallest model within a drop, and a measured latency."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnxprune.latency.timer
from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.search import approach, at_latency, least_share, lost_share, within_drop
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.verify.metrics import Evaluation

X = np.random.default_rng(0).standard_normal((96, 3, 8, 8)).astype(np.float32)


def compiler(target: str = "macs=0.5") -> tuple[Compiler, Evaluation]:
    model = Model.of(parse(NETS["chain"]))
    samples = open_samples({"x": X[:64]}, model.inputs)
    made = Compiler(model, Recipe(target=target, align="1"), samples)
    return made, Evaluation(model, open_samples({"x": X[64:]}, model.inputs), "cosine")


@pytest.mark.parametrize("drop", [0.05, 0.3])
def test_what_is_found_is_within_the_drop(drop: float) -> None:
    found = within_drop(*compiler(), drop, Target("macs", 0.5))
    assert found.score.original - found.score.pruned <= drop
    passed = [target.fraction for target, score in found.tried if found.score.original - score <= drop]
    assert found.target.fraction == min(passed)
    missed = [target.fraction for target, score in found.tried if found.score.original - score > drop]
    assert max(missed, default=0) < found.target.fraction
    assert found.tried[0][0] == Target("macs", 0.5)


def test_more_may_be_lost_with_a_larger_drop() -> None:
    strict, loose = (within_drop(*compiler(), drop, Target("macs", 0.5)).target.fraction for drop in (0.05, 0.3))
    assert loose <= strict


def test_no_model_is_good_enough() -> None:
    made, evaluation = compiler()
    evaluation.original = 2.0  # no cosine comes near
    with pytest.raises(TargetError, match=r"no model within a drop of 1\.00%: the best of"):
        within_drop(made, evaluation, 0.01, Target("macs", 0.5))


@pytest.mark.parametrize("bias", [0.8, 1.0, 1.3])
def test_latency_is_corrected_until_it_holds(bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is off by a factor; what is measured decides."""
    drafts: list[float] = []

    class Draft:
        def __init__(self) -> None:
            self.stages = made.stages

        def draft(self, target: Target) -> tuple[None, float]:
            drafts.append(target.fraction)
            return None, drafts[-1]

    made, _ = compiler()
    monkeypatch.setattr(onnxprune.latency.timer, "measure_ratio", lambda _, candidate, **__: min(bias * candidate, 1.0))
    target, measured = at_latency(Draft(), Target("latency", 0.5))  # type: ignore[arg-type]
    assert measured == pytest.approx(bias * target.fraction)
    assert target.metric == "latency"
    assert 0.45 <= bias * target.fraction <= 0.5
    assert len(drafts) <= 6


def test_a_latency_that_nothing_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = compiler()
    monkeypatch.setattr(onnxprune.latency.timer, "measure_ratio", lambda *_, **__: 0.9)
    monkeypatch.setattr(made, "draft", lambda target: (None, target))
    with pytest.raises(TargetError, match=r"latency=0.5 cannot be reached: the fastest model of 6 has latency=0.900"):
        at_latency(made, Target("latency", 0.5))


def test_a_model_without_groups_has_none_within_a_drop() -> None:
    model = Model.of(parse("(float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> { y = Conv(x, w) }"))
    made = Compiler(model, Recipe(target="macs=0.5"), open_samples({"x": X}, model.inputs))
    with pytest.raises(TargetError, match="the model has no group that can be pruned"):
        within_drop(made, Evaluation(model, open_samples({"x": X}, model.inputs), "cosine"), 0.1, Target("macs", 0.5))


# Shares


@pytest.mark.parametrize("limit", [0.06, 0.3, 0.77, 0.99])
@pytest.mark.parametrize("start", [0.5, 0.9])
@pytest.mark.parametrize("power", [1.0, 2.0, 5.0, math.inf])
def test_the_least_share_is_found(limit: float, start: float, power: float) -> None:
    """Losses grow with a power of what is removed, or all at once."""
    tried: list[float] = []

    def lost(share: float) -> float:
        tried.append(share)
        more = (1 - share) / (1 - limit)
        return 0.5 if power == math.inf and more < 1 else min(more**power, 1e6)

    assert limit - 1e-4 <= least_share(lost, start) <= limit + 0.0201
    assert tried[0] == start
    assert len(tried) <= 11
    if power == 2 and limit > 0.1:
        assert len(tried) <= 4  # as it is taken to be


def test_where_no_share_holds_all_remains() -> None:
    assert least_share(lambda _: math.inf, 0.5) == 1.0


def test_a_search_can_end_at_a_floor() -> None:
    assert least_share(lambda _: 0.0, 0.7, 0.6) <= 0.62


@pytest.mark.parametrize(
    ("score", "drop", "expected"), [(0.8, 0.2, 0.5), (0.95, 0.2, 0.0), (0.6, 0.2, 1.5), (0.9, 0.0, 0.0), (0.89, 0.0, math.inf)]
)
def test_what_is_lost_is_a_share_of_what_may_be(score: float, drop: float, expected: float) -> None:
    assert lost_share(0.9, score, drop) == pytest.approx(expected)


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4])
def test_a_share_is_corrected_by_what_it_measured(power: float) -> None:
    tried = approach(lambda share: share**power, 0.3, 0.5)
    *_, last = tried.values()
    assert 0.92 * 0.3 <= last <= 0.99 * 0.3
    assert next(iter(tried)) == 0.5
