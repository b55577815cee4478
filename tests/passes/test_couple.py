"""The pass that finds the groups."""

from __future__ import annotations

from nets import GROUPS, LAYER_NORM, NETS, describe, parse
from onnxprune.axes.rules.registry import Reason
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize
from onnxprune.passes.analysis import Normalized


def normal(text: str) -> Normalized:
    return Normalize().run(Model.of(parse(text)))


def test_it_finds_the_coupling_and_changes_nothing() -> None:
    found = normal(NETS["gate"])
    analysis = Couple().run(found)
    assert analysis.model is found.model
    assert analysis.shapes is found.shapes
    assert describe(analysis.coupling) == GROUPS["gate"]


def test_options_reach_the_analysis() -> None:
    assert not Couple(protect=("down",)).run(normal(NETS["gate"])).coupling.groups  # w1:0 is down's other axis
    assert [group.exact for group in Couple(allow_inexact=True).run(normal(LAYER_NORM)).coupling.groups] == [False]


def test_frozen_groups_stay_with_their_reason() -> None:
    coupling = Couple().run(normal(NETS["gate"]), {"w1:0": "the verifier found it"}).coupling
    assert [group.id for group in coupling.groups] == ["down:0"]
    (refusal,) = (refusal for refusal in coupling.refusals if refusal.reason is Reason.VERIFICATION)
    assert (refusal.value, refusal.axis, refusal.size, refusal.text) == ("w1", 0, 8, "the verifier found it")
