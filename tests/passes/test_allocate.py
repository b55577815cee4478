"""The pass that makes the plan."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.model import Model
from onnxprune.options.targets import Align, Target
from onnxprune.passes import Allocate, Couple, Normalize, ScoreChannels
from onnxprune.pruning.allocation import Allocation
from onnxprune.pruning.knapsack import Curve

ANALYSIS = Couple().run(Normalize().run(Model.of(parse(NETS["residual"]))))
SCORES = ScoreChannels().run(ANALYSIS)


def planned(target: str, scope: str = "global", align: str = "auto") -> Plan:
    return Allocate(Target.parse(target), scope, Align.parse(align)).run(ANALYSIS, SCORES)


def test_what_scores_highest_stays() -> None:
    plan = planned("channels=0.5", align="1")
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"w0:0": 4, "w1:0": 3}
    for name, kept in plan.keep.items():
        np.testing.assert_array_equal(kept, np.sort(np.argsort(-SCORES[name])[: len(kept)]))


def test_widths_are_aligned() -> None:
    plan = planned("channels=0.5", align="2")
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"w0:0": 4, "w1:0": 2}
    with pytest.raises(TargetError, match="alignment 16"):
        planned("macs=0.5", align="16")
    with pytest.raises(TargetError, match="alignment 16, in narrow layers 4"):
        planned("macs=0.1")


def test_the_scope_reaches_the_search() -> None:
    uniform, everywhere = (
        {name: len(kept) for name, kept in planned("macs=0.6", scope, "1").keep.items()} for scope in ("uniform", "global")
    )
    assert uniform != everywhere


@pytest.mark.parametrize(("target", "align"), [("speed=2", "1"), ("macs=0", "1"), ("macs=0.5", "0")])
def test_options_without_sense(target: str, align: str) -> None:
    with pytest.raises(OptionError):
        planned(target, align=align)


@pytest.mark.parametrize(
    ("target", "align", "counts"), [("macs=0.5", "auto", True), ("macs=0.5", "4", False), ("params=0.5", "auto", False)]
)
def test_what_kernels_compute_counts_where_macs_stand_for_time(
    target: str, align: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def spied(*args: object, kernels: object, **options: object) -> Allocation:
        given.append(kernels)
        return Allocation({}, 1.0)

    monkeypatch.setattr("onnxprune.passes.allocate.allocate_by_curves", spied)
    planned(target, "sensitivity", align)
    assert (given != [None]) == counts


@pytest.mark.parametrize("target", ["macs=0.4", "channels=0.9", "channels=1"])
@pytest.mark.parametrize("scope", ["global", "uniform", "sensitivity"])
def test_layers_keep_the_share_that_they_are_given(target: str, scope: str) -> None:
    curves = {group.id: Curve(np.arange(group.size), np.arange(group.size + 1.0), {}) for group in ANALYSIS.coupling.groups}
    plan = Allocate(Target.parse(target), scope, Align(1), layers=(("w1", 0.5),)).run(ANALYSIS, SCORES, curves=curves)
    assert len(plan.keep["w1:0"]) == 3
    assert (len(plan.keep.get("w0:0", range(8))) < 8) == (target != "channels=1")


def test_a_layer_that_stays_whole_leaves_the_target_to_the_others() -> None:
    keep = Allocate(Target.parse("macs=0.7"), align=Align(1), layers=(("w0", 1.0),)).run(ANALYSIS, SCORES).keep
    assert keep.keys() == {"w1:0"}
    with pytest.raises(TargetError, match="cannot be reached"):
        Allocate(Target.parse("macs=0.7"), align=Align(1), layers=(("*", 1.0),)).run(ANALYSIS, SCORES)


def test_a_share_below_the_floor_of_others_and_an_aligned_one() -> None:
    assert len(Allocate(Target("channels", 1), align=Align(1), layers=(("w0", 0.01),)).run(ANALYSIS, SCORES).keep["w0:0"]) == 1
    assert len(Allocate(Target("channels", 1), align=Align(4), layers=(("w0", 0.3),)).run(ANALYSIS, SCORES).keep["w0:0"]) == 4
