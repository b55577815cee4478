"""Trials of mixtures: each is built once, timed, and judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from onnxprune.data.samples import open_samples
from onnxprune.driver import trials as module
from onnxprune.driver.levers.base import Lever, Made, Mixture, Step
from onnxprune.driver.progress import Stages
from onnxprune.driver.trials import Meets, Trial, Trials, WithinDrop
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.targets import Target
from onnxprune.verify.metrics import Evaluation, QualityScore
from optimizable import X, clock, ground


class Scaled(Lever):
    """Multiplies the weights of the classifier; counts how often."""

    name = "scaled"
    graded = True

    def choices(self) -> Sequence[str]:
        return ("2",)

    def carry_out(self, made: Made, choice: str) -> Made:
        if choice == "0":
            raise TargetError("nothing remains")
        built.append(choice)
        model = made.model.copy()
        weight = model.weights["w4"]
        model.weights["w4"] = weight.derived(weight.shape, lambda array: array * float(choice))
        return made.then(Step(self.name, choice, {"scaled": model}))


class Again(Scaled):
    """The same once more."""

    name = "again"


built: list[str] = []


@pytest.fixture
def trials() -> Trials:
    built.clear()
    place = ground()
    judges = open_samples({"x": X}, place.original.inputs)
    evaluation = Evaluation(place.original, judges, "mse")
    return Trials(place.original, [Scaled(place), Again(place)], evaluation, clock().ratios, Stages(), math.inf)


def test_a_mixture_is_built_in_the_order_of_the_levers_and_judged(trials: Trials) -> None:
    found = trials.of(Mixture().having("again", "0.5").having("scaled", "2"))
    assert built == ["2", "0.5"]
    assert found.score == pytest.approx(1.0)
    assert (found.latency, found.size) == (1.0, 1.0)
    assert trials.of(Mixture().having("scaled", "2")).score < 1
    assert built == ["2", "0.5"]  # what a mixture begins with is built once


def test_a_mixture_is_tried_once(trials: Trials) -> None:
    assert trials.of(Mixture().having("scaled", "2")) is trials.of(Mixture().having("scaled", "2"))
    assert len(trials.tried) == 2


def test_a_mixture_is_judged_once(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Model] = []
    of = trials.evaluation.of

    def counted(model: Model) -> QualityScore:
        judged.append(model)
        return of(model)

    monkeypatch.setattr(trials.evaluation, "of", counted)
    found = trials.of(Mixture().having("scaled", "2"))
    assert trials.score(found.mixture).pruned == trials.score(found.mixture).pruned == found.score
    assert len(judged) == 1


def test_what_cannot_be_made_is_remembered(trials: Trials) -> None:
    for _ in range(2):
        with pytest.raises(TargetError, match="nothing remains"):
            trials.of(Mixture().having("scaled", "0"))
    assert list(trials.failed.values()) == ["nothing remains"]


def test_nothing_is_begun_when_the_time_is_over(trials: Trials) -> None:
    trials._until = 0.0
    with pytest.raises(TimeoutError):
        trials.of(Mixture().having("scaled", "2"))
    assert trials.of(Mixture()).score == pytest.approx(1.0)
    assert not built


def test_models_that_take_much_memory_are_made_again(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 0)
    first, second = (Mixture().having("scaled", choice) for choice in "23")
    for mixture in (first, second, first):
        assert isinstance(trials.made(mixture).model, Model)
    assert built == ["2", "3", "2"]


def test_wishes() -> None:
    one = Trial(Mixture(), 0.5, 0.4, 0.88)
    faster, better = replace(one, latency=0.4), replace(one, score=0.89)
    drop, target = WithinDrop(0.9, 0.02), Meets(Target("latency", 0.45))
    assert drop.holds(one)
    assert not WithinDrop(0.9, 0.01).holds(one)
    assert min([one, faster, better], key=drop.rank) is faster
    assert [target.holds(trial) for trial in (one, faster)] == [False, True]
    assert Meets(Target("size", 0.45)).holds(one)
    assert min([one, faster, better], key=target.rank) is better


def test_where_the_clock_does_not_tell_models_apart_the_score_decides() -> None:
    close = [("fastest", 0.680, 0.985), ("as fast", 0.687, 0.988), ("slower", 0.700, 0.990)]
    trials = [Trial(Mixture().having("scaled", name), latency, 1.0, score) for name, latency, score in close]
    wish = WithinDrop(0.99, 0.01)
    assert wish.choose(trials) is trials[1]
    assert wish.choose([trials[0], trials[2]]) is trials[0]
    assert wish.choose([replace(trials[1], score=0.985), trials[0]]) is trials[0]  # as good, and faster


def test_a_draft_is_timed_on_top_of_what_is_built_and_is_not_kept(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled, again = trials.levers
    mixture = Mixture().having("scaled", "2").having("again", "3")
    assert trials.draft(mixture, again) is None  # which makes none
    monkeypatch.setattr(Again, "draft", lambda lever, made, choice: lever.carry_out(made, choice))
    found = trials.draft(mixture, again)
    assert found is not None
    assert (found.mixture, found.latency) == (mixture, 1.0)
    assert math.isnan(found.score)
    assert mixture not in trials.tried
    assert built == ["2", "3"]
    assert trials.draft(mixture, scaled) is None  # all from a lever on are drafts
    assert trials.draft(Mixture().having("again", "0"), again) is None


def test_a_model_improves_where_it_is_clearly_faster() -> None:
    wish = WithinDrop(0.9, 0.01)
    times = [Trial(Mixture(), latency, 1.0, 0.9) for latency in (0.98, 0.995, 1.1)]
    assert [wish.improves(trial) for trial in times] == [True, False, False]
    assert all(Meets(Target("size", 0.5)).improves(trial) for trial in times)
