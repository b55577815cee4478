"""The search proposes what the grid has and more, learns from what it is told, and spends nothing on what is hopeless."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.targets import Target
from onnxprune.sweep.search import Goal, Preview, Searcher, searched
from onnxprune.sweep.summary import COSTS

AXES: Mapping[str, list[Any]] = {"target": ["macs=0.9", "macs=0.1"], "criterion": ["obs", "l2", "l1"], "align": ["1", "auto"]}
GOAL = Goal("macs", 0.01)
LIMITS = {"obs": 0.33, "l2": 0.5, "l1": 0.7}
"""Targets below which models of a criterion lose more than a point."""


def searcher(trials: int = 30, seed: int = 0, goal: Goal = GOAL, **axes: list[Any]) -> Searcher:
    pytest.importorskip("optuna", reason="Optuna is an extra")
    return Searcher(axes or AXES, goal, trials=trials, seed=seed)


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A model whose cost is its target, and which loses the more the further it is below the limit of its criterion."""
    fraction = Target.parse(settings["target"]).fraction
    return {"macs_ratio": fraction, "drop": 0.01 + LIMITS[settings["criterion"]] - fraction}


def up_to(count: int) -> Any:
    return lambda done: done < count


def test_it_finds_what_lies_between_the_targets_of_a_grid() -> None:
    grid = min(0.9 - 0.1 * i for i in range(9) if 0.9 - 0.1 * i >= LIMITS["obs"])
    one = searcher()
    best = searched(one, run, more=up_to(30))
    assert best
    assert best.settings["criterion"] == "obs"
    assert LIMITS["obs"] <= (best.outcome or {})["macs_ratio"] < grid
    assert len(one.tried) <= 30


def test_the_same_seed_gives_the_same_settings() -> None:
    def settings(seed: int) -> list[Any]:
        one = searcher(seed=seed)
        searched(one, run, more=up_to(12))
        return [tried.settings for tried in one.tried]

    assert settings(3) == settings(3)
    assert settings(3) != settings(4)


def test_settings_are_those_of_the_grid_by_name_and_value() -> None:
    one = searcher(target=["macs=0.5"], criterion=["obs"], rounds=[1, 2, None], flag=[True])
    found: list[dict[str, Any]] = []
    while settings := one.ask():
        one.tell(settings, {"macs_ratio": 0.5, "drop": 0.0})
        found.append(settings)
    assert [sorted(settings) for settings in found] == [["criterion", "flag", "rounds", "target"]] * 3
    assert {settings["rounds"] for settings in found} == {1, 2, None}
    assert found[0]["target"] == "macs=0.5"
    assert found[0]["flag"] is True


def test_targets_of_several_metrics_keep_to_their_ranges() -> None:
    one = searcher(target=["macs=0.9", "macs=0.5", "params=0.4", "params=0.2"])
    targets = [Target.parse(settings["target"]) for _ in range(20) if (settings := one.ask())]
    assert {target.metric for target in targets} == {"macs", "params"}
    assert all((0.5 <= t.fraction <= 0.9) if t.metric == "macs" else (0.2 <= t.fraction <= 0.4) for t in targets)


def test_without_targets_options_alone_are_searched() -> None:
    one = searcher(level=[1, 2, 3])
    searched(one, lambda settings: {"macs_ratio": 1 / settings["level"], "drop": 0.0}, more=up_to(9))
    assert one.best
    assert one.best.settings == {"level": 3}
    assert len(one.tried) == 3


def test_what_follows_from_others_is_not_proposed() -> None:
    one = searcher(target=["macs=0.9", "macs=0.1"])
    one.tell({"target": "macs=0.5"}, {"macs_ratio": 0.5, "drop": 0.0})
    one.tell({"target": "macs=0.3"}, {"macs_ratio": 0.3, "drop": 0.5})
    for _ in range(10):
        settings = one.ask()
        assert settings
        assert 0.3 < Target.parse(settings["target"]).fraction < 0.5


def test_what_would_cost_more_is_given_up() -> None:
    one = searcher()
    first = one.ask()
    assert first
    assert not one.hopeless(first, Preview(cost=0.9))
    one.tell(first, {"macs_ratio": 0.5, "drop": 0.0})
    second = one.ask()
    assert second
    assert one.hopeless(second, Preview(cost=0.6)) == "it would cost 0.600, and 0.500 was found"
    assert one.tried[-1].outcome is None
    third = one.ask()
    assert third
    assert not one.hopeless(third, Preview(cost=0.4))


def test_what_moves_further_than_others_that_lost_too_much_is_given_up() -> None:
    one = searcher()

    def tried(drift: float, drop: float) -> str:
        settings = one.ask()
        assert settings
        why = one.hopeless(settings, Preview(drift=drift))
        if not why:
            one.tell(settings, {"macs_ratio": 0.5, "drop": drop})
        return why

    assert not tried(0.2, 0.05)
    assert not tried(0.9, 0.0)  # which did not lose
    assert not tried(0.3, 0.05)
    assert not tried(0.5, 0.0)
    assert tried(1.0, 0.0) == "its outputs move by 1, and 2 runs that moved less lost too much"


def test_no_more_is_asked_once_it_is_hopeless() -> None:
    one = searcher()
    asked: list[str] = []

    def preview(settings: Mapping[str, Any]) -> Iterator[Preview]:
        asked.append("cost")
        yield Preview(cost=0.95 if one.best else 0.1)
        asked.append("drift")
        yield Preview(drift=0.1)

    searched(one, lambda _: {"macs_ratio": 0.5, "drop": 0.0}, preview=preview, more=up_to(3))
    assert asked == ["cost", "drift", "cost", "cost"]
    assert [bool(tried.given_up) for tried in one.tried] == [False, True, True]


@pytest.mark.parametrize("outcome", [{}, {"macs_ratio": 0.1}, {"macs_ratio": 0.1, "drop": float("nan")}, {"drop": 0.0}])
def test_what_failed_is_no_result_and_never_the_best(outcome: dict[str, Any]) -> None:
    one = searcher()
    settings = one.ask()
    assert settings
    one.tell(settings, outcome)
    assert one.best is None
    assert one.ask() != settings


def test_without_labels_agreement_decides() -> None:
    one = searcher()
    for agreement in (0.9, 0.995):
        settings = one.ask()
        assert settings
        one.tell(settings, {"macs_ratio": agreement / 2, "agreement": agreement, "drop": None})
    assert one.best
    assert (one.best.outcome or {})["agreement"] == 0.995


def test_several_may_be_asked_for_before_any_is_told_of() -> None:
    one = searcher()
    asked = [settings for _ in range(4) if (settings := one.ask())]
    assert len({str(settings) for settings in asked}) == 4
    for settings in reversed(asked):
        one.tell(settings, run(settings))
    assert len(one.tried) == 4


def test_nothing_is_asked_for_twice_at_a_time() -> None:
    one = searcher(level=[1, 2])
    assert sorted(settings["level"] for settings in iter(one.ask, None)) == [1, 2]


def test_goals_and_budgets_without_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="no cost 'speed'; there are latency, size, macs, params"):
        Goal("speed")
    with pytest.raises(OptionError, match="fraction of 1"):
        Goal("macs", 1.5)
    assert set(COSTS) == {"latency", "size", "macs", "params"}
    with pytest.raises(OptionError, match="--search 0"):
        Searcher(AXES, GOAL, trials=0)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr("onnxprune.sweep.search.find_spec", lambda _: None)
    with pytest.raises(OptionError, match="run pip install"):
        Searcher(AXES, GOAL, trials=3)
