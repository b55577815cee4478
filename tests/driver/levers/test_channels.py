"""Channels as a lever."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.base import Ground, Made, Mixture
from onnxprune.driver.levers.channels import Channels
from onnxprune.driver.progress import Stages
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.optimize import OptimizeRecipe
from optimizable import X, clock, ground

SMALL = OptimizeRecipe(target="size=0.5")


def test_a_share_is_a_target_of_the_goal() -> None:
    assert Channels(ground(SMALL)).at(0.25) == "size=0.25"
    assert Channels(ground()).at(0.25) == "latency=0.25"


def test_a_choice_is_cut_proven_and_repaired() -> None:
    lever = Channels(ground(SMALL))
    assert lever.choices()
    made = lever.carry_out(Made(Mixture(), lever.ground.original), "size=0.5")
    assert made.model.nbytes <= 0.5 * lever.ground.original.nbytes
    (step,) = made.steps
    assert step.check is not None
    assert step.check.ok
    assert list(step.models) == ["cut", "repaired"]
    shapes = [
        {name: weight.shape for name, weight in model.weights.items() if name.startswith("w")} for model in step.models.values()
    ]
    assert shapes[0] == shapes[1]


def test_a_draft_has_the_widths_of_what_is_carried_out() -> None:
    lever = Channels(ground(SMALL))
    start = Made(Mixture(), lever.ground.original)
    draft, found = lever.draft(start, "size=0.4"), lever.carry_out(start, "size=0.4")
    assert draft.mixture == found.mixture
    widths = [{weight.shape for weight in made.model.weights.values()} for made in (draft, found)]
    assert widths[0] == widths[1]


def test_a_share_that_cannot_be_reached() -> None:
    lever = Channels(ground(SMALL))
    with pytest.raises(TargetError, match="cannot be reached"):
        lever.carry_out(Made(Mixture(), lever.ground.original), "size=0.01")


def test_a_model_without_groups_has_no_choice() -> None:
    model = Model.of(parse("(float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> { y = Conv(x, w) }"))
    lever = Channels(Ground(model, SMALL, open_samples({"x": X}, model.inputs), Stages(), clock().nodes))
    assert not lever.choices()
    assert "no group that can be pruned" in lever.notes[0]
