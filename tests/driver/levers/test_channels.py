"""Channels as a lever."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.base import Ground, Made, Mixture
from onnxprune.driver.levers.channels import Channels
from onnxprune.driver.levers.precision import Precision
from onnxprune.driver.progress import Stages
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.optimize import OptimizeRecipe
from optimizable import X, clock, closed, ground, steady_table

__all__ = ["closed"]

SMALL = OptimizeRecipe(target="size=0.5")


def test_a_share_is_a_target_of_the_goal() -> None:
    assert Channels(ground(SMALL)).at(0.25, Mixture()) == "size=0.25"
    assert Channels(ground()).at(0.25, Mixture()) == "latency=0.25"


@pytest.mark.usefixtures("closed")
def test_channels_beside_integers_are_cut_by_what_layers_take_in_int8(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady_table(tmp_path_factory, monkeypatch)
    found = ground()
    channels, precision = Channels(found), Precision(found)
    rungs = dict.fromkeys(precision.choices())
    assert {"int8", "int8, 1 of 4 layers in float32"} <= rungs.keys()
    choices = [channels.at(0.6, Mixture().having("precision", rung)) for rung in ("", *rungs)]
    assert choices == ["latency=0.6", *(f"latency=0.6 of {rung}" for rung in rungs)]
    start = Made(Mixture(), found.original)
    in_floats, in_int8, *_ = (channels.draft(start, choice).model.weights["w2"].shape for choice in choices)
    assert [size % 16 for size in in_int8[:2]] == [0, 0]
    assert [size % 16 for size in in_floats[:2]] != [0, 0]
    assert channels.carry_out(start, choices[1]).model.weights["w2"].shape == in_int8


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
