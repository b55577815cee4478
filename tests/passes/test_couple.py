"""The pass that establishes the groups."""

from __future__ import annotations

from nets import GROUPS, LAYER_NORM, NETS, describe, parse
from onnxprune.axes.rules.registry import Reason
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Facts, Normalize, Pipeline


def test_it_establishes_the_coupling_and_changes_nothing() -> None:
    model = Model.of(parse(NETS["gate"]))
    facts = Facts()
    assert Couple()(model, facts) is model
    assert facts.shapes is not None
    assert facts.coupling is not None
    assert describe(facts.coupling) == GROUPS["gate"]


def test_it_takes_the_shapes_that_are_known() -> None:
    _, facts = Pipeline([Normalize()]).run(Model.of(parse(NETS["gate"])))
    shapes = facts.shapes
    Couple()(Model.of(parse(NETS["gate"])), facts)
    assert facts.shapes is shapes


def test_options_reach_the_analysis() -> None:
    facts = Facts()
    Couple(protect=("down",))(Model.of(parse(NETS["gate"])), facts)
    assert facts.coupling is not None
    assert not facts.coupling.groups  # w1:0 is down's other axis
    facts = Facts()
    Couple(allow_inexact=True)(Model.of(parse(LAYER_NORM)), facts)
    assert facts.coupling is not None
    assert [group.exact for group in facts.coupling.groups] == [False]


def test_frozen_groups_stay_with_their_reason() -> None:
    facts = Facts(frozen={"w1:0": "the verifier found it"})
    Couple()(Model.of(parse(NETS["gate"])), facts)
    assert facts.coupling is not None
    assert [group.id for group in facts.coupling.groups] == ["down:0"]
    (refusal,) = (refusal for refusal in facts.coupling.refusals if refusal.reason is Reason.VERIFICATION)
    assert (refusal.value, refusal.axis, refusal.size, refusal.text) == ("w1", 0, 8, "the verifier found it")
