"""The pass that makes the plan."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.model import Model
from onnxprune.passes import Allocate, Couple, Facts, Pipeline, Score


def planned(step: Allocate) -> Facts:
    model = Model.of(parse(NETS["residual"]))
    result, facts = Pipeline([Couple(), Score(), step]).run(model)
    assert result is model
    return facts


def test_it_establishes_a_plan_and_changes_nothing() -> None:
    facts = planned(Allocate("channels=0.5", align="1"))
    assert facts.plan is not None
    assert facts.scores is not None
    assert {name: len(kept) for name, kept in facts.plan.keep.items()} == {"w0:0": 4, "w1:0": 3}
    for name, kept in facts.plan.keep.items():
        np.testing.assert_array_equal(kept, np.sort(np.argsort(-facts.scores[name])[: len(kept)]))


def test_widths_are_aligned() -> None:
    plan = planned(Allocate("channels=0.5", align="2")).plan
    assert plan is not None
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"w0:0": 4, "w1:0": 2}
    with pytest.raises(TargetError, match="alignment 16"):
        planned(Allocate("macs=0.5", align="16"))
    with pytest.raises(TargetError, match="alignment 16, in narrow layers 4"):
        planned(Allocate("macs=0.1"))


def test_the_scope_reaches_the_search() -> None:
    plans = [planned(Allocate("macs=0.6", scope, "1")).plan for scope in ("uniform", "global")]
    uniform, everywhere = ({name: len(kept) for name, kept in plan.keep.items()} for plan in plans if plan is not None)
    assert uniform != everywhere


@pytest.mark.parametrize("step", [Allocate("speed=2"), Allocate("macs=0"), Allocate(align="0")])
def test_options_without_sense(step: Allocate) -> None:
    with pytest.raises(OptionError):
        planned(step)
