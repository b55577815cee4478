"""The search over mixtures, with imagined models: what it tries, in which order, and what it finds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from imagined import FULL, NOISE, Coarse, Fragile, Imagined, Ladder, WithDrafts, WithZeros
from onnxprune.driver.levers.base import Mixture
from onnxprune.driver.mixing import search
from onnxprune.driver.trials import Meets, Trial, WithinDrop
from onnxprune.options.targets import Target


def best(trials: Imagined, wish: Any) -> Trial:
    search(trials, wish)
    return trials.ranked(wish)[0]


def test_every_lever_is_tried_alone() -> None:
    trials = Imagined()
    search(trials, WithinDrop(FULL, 0.01))
    texts = [str(mixture) for mixture in trials.tried]
    assert texts[:3] == ["original", "lossless", "lossless + all"]
    assert any(set(dict(mixture.choices)) == {"lossless", "channels"} for mixture in trials.tried)


def test_the_mixture_is_faster_than_each_lever_alone_and_within_the_drop() -> None:
    trials, wish = Imagined(), WithinDrop(FULL, 0.01)
    found = best(trials, wish)
    assert wish.holds(found)
    assert dict(found.mixture.choices).keys() == {"lossless", "channels", "precision"}
    alone = [trial for trial in trials.tried.values() if len(trial.mixture.choices) <= 2 and wish.holds(trial)]
    assert found.latency < min(trial.latency for trial in alone)
    exact = 1 - ((0.01 - 0.002) / 0.04) ** 0.5
    assert exact <= float(dict(found.mixture.choices)["channels"]) <= exact + 0.02


def test_a_milder_rung_is_taken_where_the_boldest_loses_too_much() -> None:
    found = best(Imagined(loss=0.015), WithinDrop(FULL, 0.01))
    assert dict(found.mixture.choices)["precision"] == "most"


def test_what_is_predicted_to_be_fastest_is_tried_first_and_the_boldest_next(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"all": 1.1, "most": 0.9, "half": 0.8}
    monkeypatch.setattr(Ladder, "expected", lambda _, choice: times.get(choice, 1.0))
    trials = Imagined(loss=0.03)
    search(trials, WithinDrop(FULL, 0.001))
    tried = [dict(mixture.choices)["precision"] for mixture in trials.tried if "precision" in dict(mixture.choices)]
    assert tried == ["half", "all", "most"]


def test_int8_that_is_slower_is_tried_and_not_mixed() -> None:
    trials = Imagined(int8=1.2)
    found = best(trials, WithinDrop(FULL, 0.01))
    assert "precision" not in dict(found.mixture.choices)
    assert not any({"channels", "precision"} <= set(dict(mixture.choices)) for mixture in trials.tried)
    assert any("precision" in dict(mixture.choices) for mixture in trials.tried)


def test_an_exact_lever_that_makes_it_slower_is_left_out() -> None:
    class Slower(Imagined):
        def of(self, mixture: Mixture) -> Trial:
            found = super().of(mixture)
            if "lossless" in dict(mixture.choices):
                self.tried[mixture] = found = Trial(mixture, found.latency * 1.2, found.size, found.score)
            return found

    assert "lossless" not in dict(best(Slower(), WithinDrop(FULL, 0.01)).mixture.choices)


@pytest.mark.parametrize("fraction", [0.7, 0.4, 0.2])
@pytest.mark.parametrize("metric", ["latency", "size"])
def test_a_target_is_met_by_the_most_accurate(metric: str, fraction: float) -> None:
    trials, wish = Imagined(), Meets(Target(metric, fraction))
    found = best(trials, wish)
    assert 0.9 * fraction <= wish.of(found) <= fraction or "channels" not in dict(found.mixture.choices)
    met = [trial.score for trial in trials.tried.values() if wish.holds(trial)]
    assert found.score == max(met)
    alone = FULL - 0.04 * (1 - fraction / 0.95) ** 2  # channels alone
    assert found.score >= alone - 1e-3


def test_what_cannot_be_reached_ends_the_search() -> None:
    trials, wish = Imagined(least=0.5), Meets(Target("latency", 0.01))
    search(trials, wish)
    assert not trials.ranked(wish)
    least = min(trial.latency for trial in trials.tried.values())
    assert least < 0.5 * 0.5 * 1.2  # what came nearest is known


def test_the_search_ends_with_the_time() -> None:
    trials = Imagined(most=5)
    with pytest.raises(TimeoutError):
        search(trials, WithinDrop(FULL, 0.01))
    assert len(trials.tried) == 6


def levers_of(trials: Imagined) -> list[set[str]]:
    return [dict(mixture.choices).keys() - {"lossless"} for mixture in trials.tried]


def test_a_second_graded_lever_is_searched_alone_and_on_top_of_the_first() -> None:
    trials, wish = WithZeros(int8=1.2), WithinDrop(FULL, 0.01)
    found = best(trials, wish)
    assert dict(found.mixture.choices).keys() >= {"channels", "zeros"}
    assert {"zeros"} in levers_of(trials)
    assert {"channels"} in levers_of(trials)
    alone = [
        trial
        for trial in trials.ranked(wish)
        if len(dict(trial.mixture.without("lossless").choices).keys() & {"channels", "zeros"}) == 1
    ]
    assert found.latency < 0.95 * min(trial.latency for trial in alone)


def test_all_three_are_mixed() -> None:
    trials, wish = WithZeros(), WithinDrop(FULL, 0.01)
    assert dict(best(trials, wish).mixture.choices).keys() == {"lossless", "channels", "zeros", "precision"}


def test_a_graded_lever_that_loses_more_than_it_saves_is_left_out() -> None:
    found = best(WithZeros(weight=5.0, int8=1.2), WithinDrop(FULL, 0.01))
    assert "zeros" not in dict(found.mixture.choices)


@pytest.mark.parametrize("fraction", [0.5, 0.3])
def test_a_target_is_met_by_two_graded_levers(fraction: float) -> None:
    trials, wish = WithZeros(int8=1.2), Meets(Target("latency", fraction))
    found = best(trials, wish)
    assert {"channels", "zeros"} <= dict(found.mixture.choices).keys()
    assert 0.9 * fraction <= found.latency <= fraction
    alone = [trial.score for trial in trials.ranked(wish) if "channels" not in dict(trial.mixture.choices)]
    assert alone
    assert found.score > max(alone)


def test_what_comes_later_is_left_out_on_the_way_and_nothing_that_comes_before() -> None:
    """With channels cut, zeros without these are another model, which takes as long to build as the first one."""
    trials = WithZeros()
    search(trials, WithinDrop(FULL, 0.01))
    mixed = [mixture for mixture in trials.tried if {"channels", "zeros", "precision"} <= dict(mixture.choices).keys()]
    assert mixed
    assert all(mixture.without("precision") in trials.tried for mixture in mixed)
    together = {dict(mixture.choices)["zeros"] for mixture in mixed}
    alone = {dict(mixture.choices)["zeros"] for mixture in trials.tried if dict(mixture.choices).keys() == {"lossless", "zeros"}}
    assert not together <= alone


def test_what_saves_most_is_searched_first_and_channels_alone_on_the_way() -> None:
    trials = Imagined()
    search(trials, WithinDrop(FULL, 0.01))
    mixed = [mixture for mixture in trials.tried if "channels" in dict(mixture.choices)]
    assert dict(mixed[0].choices)["precision"] == "all"
    assert mixed[1] == mixed[0].without("precision")


class Misfit(Imagined):
    """The fastest rung gains little by channels."""

    def of(self, mixture: Mixture) -> Trial:
        chosen = dict(mixture.choices)
        found = super().of(mixture)
        if chosen.get("precision") == "all" and "channels" in chosen:
            found = self.tried[mixture] = replace(found, latency=max(found.latency, 0.45))
        return found


def test_of_rungs_that_hardly_differ_the_one_is_searched_first_that_channels_suit() -> None:
    trials, wish = Misfit(), WithinDrop(FULL, 0.01)
    found = best(trials, wish)
    assert dict(found.mixture.choices)["precision"] == "most"
    deep = [dict(mixture.choices).get("precision") for mixture in trials.tried if "channels" in dict(mixture.choices)]
    assert deep[:4] == ["all", None, "most", "most"]


def test_channels_alone_are_searched_before_the_second_rung() -> None:
    """They are what users would take instead, and may be the fastest where int8 gains little on top of them."""
    trials, wish = Imagined(loss=0.0005), WithinDrop(FULL, 0.01)
    search(trials, wish)
    mixed = [dict(mixture.choices) for mixture in trials.tried if "channels" in dict(mixture.choices)]
    _, second, *_ = (at for at, one in enumerate(mixed) if one.get("precision") == "most")  # the first only compares it
    alone = {one["channels"] for one in mixed[:second] if "precision" not in one}
    assert alone > {one["channels"] for one in mixed[:second] if "precision" in one}


# Drafts


@pytest.mark.parametrize("off", [1.0, 1.05, 0.93])
def test_drafts_find_the_share_that_meets_a_target_so_that_few_models_are_finished(off: float) -> None:
    wish = Meets(Target("latency", 0.23))
    plain, drafted = Imagined(), WithDrafts(off)
    found = best(drafted, wish)
    assert 0.9 * 0.23 <= found.latency <= 0.23
    assert found.score == pytest.approx(best(plain, wish).score, abs=0.004)
    with_channels = [one for one in drafted.tried if len({"channels", "precision"} & dict(one.choices).keys()) == 2]
    assert len(with_channels) <= (2 if off == 1 else 4)
    assert not any(math.isnan(trial.score) for trial in drafted.tried.values())


def test_rungs_that_are_too_noisy_are_passed_over() -> None:
    def rungs(scale: float) -> list[str]:
        trials = Fragile(scale)
        search(trials, WithinDrop(FULL, 0.01))
        return [dict(one.choices)["precision"] for one in trials.tried if set(dict(one.choices)) == {"lossless", "precision"}]

    assert rungs(0.001) == ["0 of 9", "1 of 9"]
    assert rungs(0.008) == ["0 of 9", "1 of 9", "2 of 9", "4 of 9"]
    assert rungs(0.018) == ["0 of 9", "1 of 9", "4 of 9"]
    assert rungs(0.1) == ["0 of 9", "1 of 9"]


def test_where_no_rung_holds_little_is_cut_first() -> None:
    for scale, first in ((0.001, "0.5"), (0.1, "0.9")):
        trials = Fragile(scale)
        search(trials, WithinDrop(FULL, 0.01))
        assert next(dict(one.choices)["channels"] for one in trials.tried if "channels" in dict(one.choices)) == first


def test_a_rung_that_cannot_catch_up_is_left_after_two_tries() -> None:
    trials, wish = Imagined(), WithinDrop(FULL, 0.01)
    found = best(trials, wish)
    assert dict(found.mixture.choices)["precision"] == "all"
    tried = Counter(dict(mixture.choices).get("precision") for mixture in trials.tried if "channels" in dict(mixture.choices))
    assert tried["all"] > 1
    assert tried["most"] == 2  # at the share that rungs are compared at, and where it would be as fast as the best
    assert tried[None] > 1  # channels alone


def test_a_rung_that_catches_up_is_searched() -> None:
    found = best(Imagined(loss=0.0095), WithinDrop(FULL, 0.01))
    assert dict(found.mixture.choices)["precision"] == "most"


def test_of_rungs_that_miss_a_target_one_is_finished() -> None:
    drafted = WithDrafts()
    search(drafted, Meets(Target("latency", 0.23)))
    alone = [one for one in drafted.tried if "precision" in dict(one.choices) and "channels" not in dict(one.choices)]
    assert len(alone) == 1


def test_a_rung_whose_draft_meets_the_target_is_finished() -> None:
    drafted = WithDrafts()
    search(drafted, Meets(Target("latency", 0.53)))
    alone = [dict(one.choices)["precision"] for one in drafted.tried if {"lossless", "precision"} == dict(one.choices).keys()]
    assert alone == ["all", "most"]


def test_drafts_are_for_targets() -> None:
    drafted = WithDrafts()
    search(drafted, WithinDrop(FULL, 0.01))
    assert not drafted.drafts


class WithDepth(WithZeros):
    """The same, where a lever before the channels has some choices, of which the mildest loses a certain part of the score."""

    def __init__(self, mildest: float, **settings: Any) -> None:
        super().__init__(**settings)
        first, channels, _, precision = self.levers
        depth = Coarse("zeros", "0.9")
        self.levers = (first, depth, channels, precision)
        self.weight = mildest / 0.1**2


def test_a_lever_whose_mildest_choice_loses_too_much_is_not_searched() -> None:
    wish = WithinDrop(FULL, 0.01)
    hopeless, useful = WithDepth(0.02), WithDepth(0.0005)
    for trials in (hopeless, useful):
        search(trials, wish)
    assert levers_of(hopeless).count({"zeros"}) == 1
    assert not any(levers > {"zeros"} for levers in levers_of(hopeless))
    assert any(levers > {"zeros", "channels"} for levers in levers_of(useful))


def test_a_lever_of_large_steps_is_searched_on_the_best_rung_alone() -> None:
    trials = WithDepth(0.0002, int8=0.5, loss=0.004)
    search(trials, WithinDrop(FULL, 0.01))
    rungs = Counter(dict(mixture.choices).get("precision") for mixture in trials.tried if set(dict(mixture.choices)) >= {"zeros"})
    assert rungs.keys() == {"all", "most", None}
    compared = [mixture for mixture in trials.tried if dict(mixture.choices).get("precision") == "most"]
    assert sum("zeros" in dict(mixture.choices) and "channels" not in dict(mixture.choices) for mixture in compared) == 1


def test_a_ladder_whose_rungs_lose_no_less_is_left() -> None:
    class Stubborn(Fragile):
        def of(self, mixture: Mixture) -> Trial:
            found = super().of(mixture)
            return replace(found, score=FULL - 0.02) if "precision" in dict(mixture.choices) else found

    rungs = [f"{number} of 9" for number in (5, 6, 7, 8)]
    NOISE.update(dict.fromkeys(rungs, 1.0))
    try:
        trials = Stubborn(0.0)
        search(trials, WithinDrop(FULL, 0.01))
    finally:
        for rung in rungs:
            del NOISE[rung]
    tried = {dict(mixture.choices).get("precision") for mixture in trials.tried} - {None}
    assert tried == {"0 of 9", "1 of 9", "2 of 9", "4 of 9"}


def test_for_a_target_coarse_levers_come_last() -> None:
    trials = WithDepth(0.0002, int8=0.5, loss=0.004, most=8)
    with pytest.raises(TimeoutError):
        search(trials, Meets(Target("latency", 0.2)))
    assert any("channels" in levers for levers in levers_of(trials))
    assert not any("zeros" in levers for levers in levers_of(trials))
